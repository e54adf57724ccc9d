"""TLS by configuration: between services and NATS, and in front of a gateway."""

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import trustme

from saga.cli.nats_users import configuration, password_variable
from saga.contract.permissions import ROLES
from saga.runtime.bus_nats import NatsBus
from saga.runtime.config import Shared
from saga.runtime.errors import StartError
from saga.runtime.nats_access import access_of
from saga.runtime.nats_server import NatsServer

pytestmark = pytest.mark.timeout(120)


class Files:
    """A CA of our own, and a certificate for this machine that it signed."""

    def __init__(self, folder: Path, name: str = "ours") -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        self.ca, self.cert, self.key = (folder / f"{name}-{part}.pem" for part in ("ca", "cert", "key"))
        authority.cert_pem.write_to_path(self.ca)
        certificate.private_key_pem.write_to_path(self.key)
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(self.cert, append=True)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
async def nats(tmp_path: Path, files: Files) -> AsyncIterator[NatsServer]:
    """Users with passwords, and nothing without TLS."""
    config = tmp_path / "nats.conf"
    tls = f'tls {{\n  cert_file: "{files.cert}"\n  key_file: "{files.key}"\n}}\n'
    config.write_text(tls + configuration("main"))
    server = NatsServer(tmp_path / "nats", config=config, environ={password_variable(role): role for role in ROLES})
    await server.start()
    yield server
    await server.stop()


def shared(tmp_path: Path, role: str, ca: Path | None) -> Shared:
    file = tmp_path / "password"
    file.write_text(role)
    return Shared(nats_user=role, nats_password_file=file, nats_ca_file=ca)


async def test_a_service_believes_a_nats_that_its_ca_signed(nats: NatsServer, tmp_path: Path, files: Files):
    bus = await NatsBus.connect(nats.url, access=access_of(shared(tmp_path, "graph", files.ca)))

    assert bus.connected
    await bus.close()


async def test_a_service_tells_its_password_to_no_nats_that_another_ca_signed(nats: NatsServer, tmp_path: Path):
    other = Files(tmp_path, "other")

    with pytest.raises(StartError, match="SAGA_NATS_CA_FILE"):
        await NatsBus.connect(nats.url, access=access_of(shared(tmp_path, "graph", other.ca)))


async def test_a_gateway_over_https_on_a_nats_over_tls(nats: NatsServer, tmp_path: Path, files: Files):
    password, port_file = tmp_path / "gateway.password", tmp_path / "port"
    password.write_text("gateway")
    environ = {
        "SAGA_NATS_URL": nats.url,
        "SAGA_NATS_USER": "gateway",
        "SAGA_NATS_PASSWORD_FILE": str(password),
        "SAGA_NATS_CA_FILE": str(files.ca),
        "SAGA_GATEWAY_PORT": "0",
        "SAGA_GATEWAY_PORT_FILE": str(port_file),
        "SAGA_GATEWAY_TLS_CERT_FILE": str(files.cert),
        "SAGA_GATEWAY_TLS_KEY_FILE": str(files.key),
    }
    gateway = await asyncio.create_subprocess_exec(sys.executable, "-m", "saga.gateway", env=os.environ | environ)
    try:
        async with asyncio.timeout(30.0):
            while not port_file.exists():
                assert gateway.returncode is None
                await asyncio.sleep(0.02)
        port = port_file.read_text().strip()
        async with aiohttp.ClientSession() as http:
            tls = ssl.create_default_context(cafile=files.ca)
            async with http.get(f"https://127.0.0.1:{port}/healthz", ssl=tls) as answer:
                assert answer.status == 200
            with pytest.raises(aiohttp.ClientError):
                await http.get(f"http://127.0.0.1:{port}/healthz")
    finally:
        gateway.terminate()
        assert await gateway.wait() == 0


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"SAGA_GATEWAY_TLS_CERT_FILE": "CERT"}, "SAGA_GATEWAY_TLS_KEY_FILE"),
        ({"SAGA_GATEWAY_TLS_CERT_FILE": "CERT", "SAGA_GATEWAY_TLS_KEY_FILE": "/nowhere"}, "/nowhere"),
        ({"SAGA_NATS_USER": "gateway"}, "SAGA_NATS_PASSWORD_FILE"),
        ({"SAGA_NATS_USER": "gateway", "SAGA_NATS_PASSWORD_FILE": "/nowhere"}, "/nowhere"),
        ({"SAGA_NATS_CERT_FILE": "CERT"}, "SAGA_NATS_KEY_FILE"),
        ({"SAGA_NATS_CA_FILE": "/nowhere"}, "/nowhere"),
        ({"SAGA_CELL": "a.b"}, "SAGA_CELL"),
    ],
)
async def test_what_is_missing_or_wrong_stops_the_start_and_is_named(
    settings: dict[str, str], named: str, nats_url: str, files: Files
):
    told = {name: value.replace("CERT", str(files.cert)) for name, value in settings.items()}
    environ = os.environ | {"SAGA_NATS_URL": nats_url, "SAGA_GATEWAY_PORT": "0"} | told

    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "saga.gateway", env=environ, stderr=asyncio.subprocess.PIPE
    )
    _out, err = await gateway.communicate()

    assert gateway.returncode == 2
    assert named in err.decode(), err.decode()
