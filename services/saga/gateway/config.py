"""Settings of one gateway, read once from SAGA_GATEWAY_* by `__main__`."""

import re
from pathlib import Path
from typing import Final, Literal

import msgspec

from saga.runtime.config import DEFAULT_NATS_URL

PREFIX: Final = "SAGA_GATEWAY_"
MIB: Final = 1024 * 1024
_URL: Final = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway is told."""

    nats_url: str = DEFAULT_NATS_URL
    cell: str = "main"
    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free one, see port_file
    port_file: Path | None = None  # gets the port as text once the gateway listens
    tls_cert_file: Path | None = None  # its certificate and those up to its CA, PEM: HTTPS instead of HTTP
    tls_key_file: Path | None = None  # the certificate's key, PEM, without a password
    id: str = ""  # unique in the cell; empty: random
    tenants: Path | None = None  # TOML file of API keys; without it and live keys everything is tenant `default`
    live_keys: bool = False  # API keys of `saga keys`, in JetStream KV, come and go while the gateway runs
    body_limit_bytes: int = 16 * MIB  # of one request
    waiting_body_bytes: int = 256 * MIB  # of all requests that wait for an engine; above it 503
    messages_share_kv: bool = False  # tenants may use /v1/messages, where SGLang cannot keep their KV apart
    clean_prefix: str = ""  # tenants whose prompts lose their noise (billing lines, order of tools), by commas; *: all
    tokenizers: str = ""  # MODEL=FOLDER,...: where a model's tokenizer.json is; *=FOLDER: of all others
    tokenization: Literal["shadow", "gateway"] = "shadow"  # gateway: engines get token ids that were rendered here
    chain_bytes: int = 256 * MIB  # of page chains kept for sessions, least recently used out first
    resume_bytes: int = MIB  # of generated text kept per stream, to continue it if its engine dies
    body_within_s: float = 60.0  # for a request's body to arrive
    stalled_s: float = 120.0  # a client that takes nothing of its stream for so long is let go
    keepalive_s: float = 10.0  # silence after which a waiting stream gets a comment
    connect_s: float = 2.0  # to reach an engine
    otlp_endpoint: str = ""  # base URL of an OpenTelemetry collector that takes OTLP over HTTP; empty: no traces
    drain_s: float = 20.0  # for requests in flight when told to stop

    def __post_init__(self) -> None:
        """Raises ValueError naming the setting."""
        if self.id and not _ID.fullmatch(self.id):  # part of a subject
            raise ValueError(f"{PREFIX}ID={self.id!r} must be 1 to 64 letters, digits, _ or -")
        for name in (
            "body_limit_bytes",
            "waiting_body_bytes",
            "body_within_s",
            "stalled_s",
            "keepalive_s",
            "connect_s",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{PREFIX}{name.upper()} must be positive")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ValueError(f"{PREFIX}TLS_CERT_FILE and {PREFIX}TLS_KEY_FILE go together: one of them is not set")
        for name in ("port", "chain_bytes", "resume_bytes", "drain_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{PREFIX}{name.upper()} must not be negative")
        if self.otlp_endpoint and not _URL.fullmatch(self.otlp_endpoint):
            raise ValueError(
                f"{PREFIX}OTLP_ENDPOINT={self.otlp_endpoint!r} must be http://HOST:PORT or https://HOST:PORT"
            )
        folders = self.tokenizer_folders()
        if self.tokenization == "gateway" and not folders:
            raise ValueError(
                f"{PREFIX}TOKENIZATION=gateway needs {PREFIX}TOKENIZERS: what is to be sent, and by whose?"
            )

    def tokenizer_folders(self) -> dict[str, Path]:
        """Where each model's tokenizer is. Raises ValueError naming the entry."""
        folders: dict[str, Path] = {}
        for entry in filter(None, map(str.strip, self.tokenizers.split(","))):
            model, found, folder = entry.partition("=")
            if not found or not model.strip() or not folder.strip():
                raise ValueError(f"{PREFIX}TOKENIZERS: {entry!r} must be MODEL=FOLDER")
            folders[model.strip()] = Path(folder.strip())
        return folders
