"""What a file here says about its API: the Protocol, and a request as the rest of the gateway knows it. Pure.

A body passes through as it came but for the fields by which an engine is controlled; `Asked` is what was read of it.
"""

from collections.abc import Callable
from typing import Final, Literal, Protocol

import msgspec

from saga.gateway.api_errors import ApiError, guarded, invalid_value
from saga.gateway.conversations import Prints
from saga.gateway.dialects.prompt import IdsPrompt, PromptSource, TextPrompt
from saga.gateway.transcript import Transcript
from saga.kv import tokens

Api = Literal["chat", "completions", "messages", "responses"]
RawBody = dict[str, msgspec.Raw]
Changes = dict[str, object]

MAX_MESSAGES: Final = 8_000  # in one request

_EMPTY: Final = (TextPrompt(""), IdsPrompt(b""))
raw_body: Final = msgspec.json.Decoder(RawBody)
raw_list: Final = msgspec.json.Decoder(list[msgspec.Raw])


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request, understood."""

    api: Api
    raw: RawBody
    model: str
    source: PromptSource  # of the prompt
    token_bytes: bytes = b""  # of the prompt, 4 bytes a token, once its model's tokenizer was asked
    max_tokens: int | None  # None: as many as fit
    min_tokens: int = 0
    choices: int = 1  # n
    stream: bool
    wants_usage: bool = True
    agent_class: str = ""  # digest of system prompt and tools; empty when the API has none
    fixed_because: str = ""  # why a begun answer cannot be continued elsewhere; empty: it can
    continues_message: bool = False  # the client's own continue_final_message on an assistant message
    roles: tuple[str, ...] = ()  # of its messages, in order; empty when the API has none
    opening: str = ""  # the beginning of its system prompt

    guessed_tokens: int = 0  # length of the prompt where its tokens are not the engine's

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return self.guessed_tokens or len(self.token_bytes) // tokens.TOKEN_BYTES


Continued = Callable[[Asked, Transcript], Changes]
"""How the continuing request differs from the original, when text was sent."""


class Splice(Protocol):
    """Makes the stream of a later attempt look like the rest of the first one."""

    def apply(self, events: bytes) -> bytes:
        """Complete events as the client shall see them."""
        ...


class Dialect(Protocol):
    """One API. Whole events go in and out; a method that reads JSON raises msgspec.DecodeError for what is none."""

    api: Api
    path: str
    prompt_field: str  # that a prompt's length is blamed on
    messages_field: str  # where the messages are; empty: there are none
    rid_field: str  # what the engine calls a request's id
    salted: bool  # the engine can keep a tenant's KV apart
    tool_mark: bytes  # in any stream that calls a tool, if its last events do not name it
    first_events: int  # of a finished stream: to be read beside the last ones
    owes_end: bool  # the end of an answer can be made without its engine: see `ending`

    # --- the request

    def parse(self, raw: RawBody, body: bytes) -> Asked:
        """The request in `body`, whose fields are `raw`. Raises ApiError that names the field and what to change."""
        ...

    def always(self, asked: Asked) -> Changes:
        """How the body that the engine gets differs from the client's, each time."""
        ...

    # --- the stream: hot

    def ended(self, events: bytes) -> bool:
        """Whether they end the stream."""
        ...

    def needs_care(self, events: bytes) -> bool:
        """Whether any may have to be `screened`: an abort, an error, usage that not every client gets."""
        ...

    def screened(self, events: bytes, asked: Asked, sent: Transcript, sent_tokens: int) -> tuple[bytes, str]:
        """(what of these events the client gets, why the engine is lost or nothing).

        `sent_tokens`: of text, by engines that died before. Notes the usage in `sent`. Raises ApiError for an error
        that another engine would give too.
        """
        ...

    # --- what was said

    def read(self, data: bytes, sent: Transcript) -> None:
        """Take one event's JSON into account."""
        ...

    def read_whole(self, data: bytes, sent: Transcript) -> str:
        """The same of a whole answer; returns why the engine is lost, or nothing."""
        ...

    # --- going on after an engine's death

    def splice(self, sent: Transcript, rid: str) -> Splice:
        """For the stream of an attempt called `rid`, when a part of an earlier one has been sent."""
        ...

    @property
    def continued(self) -> Continued | None:
        """How an answer goes on from the text that was sent; None: with this API it cannot."""
        ...

    def ending(self, asked: Asked, sent: Transcript, reason: str, output_tokens: int) -> bytes:
        """The end that a dead engine still owed."""
        ...

    # --- errors

    def error(self, error: ApiError) -> bytes:
        """The body of an answer."""
        ...

    def error_event(self, error: ApiError) -> bytes:
        """The end of a stream that has begun."""
        ...


def understood(dialect: Dialect, body: bytes, tidy: Callable[[RawBody], RawBody] | None = None) -> Asked:
    """The request in `body`, tidied first if asked to. Raises ApiError that names the field and what to change."""

    def read() -> Asked:
        raw = raw_fields(body)
        clean = tidy(raw) if tidy is not None else raw
        return dialect.parse(clean, body if clean is raw else msgspec.json.encode(clean))

    return guarded(read)


def raw_fields(body: bytes) -> RawBody:
    """Its fields, unread, in valid UTF-8: they go on to an engine. Call through `guarded`."""
    if not body.isascii():
        body.decode()
    return raw_body.decode(body)


def prints_of(dialect: Dialect, asked: Asked) -> Prints | None:
    """By which a request's messages are recognised; None: it has none."""
    given = asked.raw.get(dialect.messages_field)
    if given is None or not dialect.messages_field:
        return None
    messages = raw_list.decode(given) if bytes(given)[:1] == b"[" else [given]
    return Prints(asked.opening, asked.roles, [bytes(message) for message in messages])


def positive(name: str, value: int | None) -> int | None:
    """The value. Raises ApiError when it is under 1."""
    if value is not None and value < 1:
        raise invalid_value(name, f"'{name}' is {value}: it must be at least 1.")
    return value


def checked_count(name: str, count: int) -> None:
    """Raises ApiError for too many messages, or none."""
    if not count:
        raise invalid_value(name, f"'{name}' is empty: send at least one message.")
    if count > MAX_MESSAGES:
        raise invalid_value(name, f"'{name}' holds {count} messages: the limit is {MAX_MESSAGES}.")


def has_words(name: str, source: PromptSource) -> PromptSource:
    """The same. Raises ApiError for a prompt of nothing."""
    if source in _EMPTY:
        raise invalid_value(name, f"'{name}' is empty: send at least one token.")
    return source
