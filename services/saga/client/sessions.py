"""One conversation of a workflow, with clients that name it in every request. Made by `workflows.py`."""

import asyncio
import logging
from collections.abc import Mapping
from functools import cached_property
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from saga.client.errors import GatewayError
from saga.client.extras import needed
from saga.client.gateway import Gateway
from saga.client.receipts import Receipt

if TYPE_CHECKING:
    from agents import Model
    from anthropic import Anthropic, AsyncAnthropic
    from langchain_openai import ChatOpenAI
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient, DefaultHttpxClient, OpenAI

log = logging.getLogger(__name__)


class Names:
    """Of the sessions of one workflow: each is given once."""

    def __init__(self) -> None:
        self._given: dict[str, int] = {}
        self._lock = Lock()

    def unique(self, name: str) -> str:
        """The name; from the second time on with a number."""
        with self._lock:
            count = self._given[name] = self._given.get(name, 0) + 1
        return name if count == 1 else f"{name}-{count}"


class Session:
    """One conversation. In a `with` block it ends with the block: then its KV may go."""

    def __init__(
        self,
        gateway: Gateway,
        workflow_id: str,
        session_id: str,
        *,
        parent_id: str = "",
        deadline_s: float | None = None,
        explain: bool = False,
        options: Mapping[str, Any] | None = None,
        names: Names | None = None,
    ) -> None:
        """`options`: for every client that it makes, as `timeout` or `max_retries`."""
        self.gateway = gateway
        self.workflow_id = workflow_id
        self.session_id = session_id
        self.parent_id = parent_id
        self._deadline_s = deadline_s
        self._explain = explain
        self._options = dict(options or {})
        self._names = names or Names()
        self._agents: dict[str, Session] = {}  # whose clients may be open
        self._above: Session | None = None
        self._connections: tuple[DefaultHttpxClient, DefaultAsyncHttpxClient] | None = None  # of LangChain's models

    # --- what it says of itself --------------------------------------------------------------------------------

    @property
    def headers(self) -> dict[str, str]:
        """To send with each of its requests, for clients that are not made here."""
        said = {"X-Saga-Workflow": self.workflow_id, "X-Saga-Session": self.session_id}
        if self.parent_id:
            said["X-Saga-Parent"] = self.parent_id
        if self._deadline_s is not None:
            said["X-Saga-Deadline-S"] = f"{self._deadline_s:g}"
        if self._explain:
            said["X-Saga-Explain"] = "1"
        return said

    @property
    def final(self) -> dict[str, str]:
        """Extra headers of its last request: saves the word at the end of the block."""
        return {"X-Saga-Final": "session" if self.parent_id else "true"}

    @staticmethod
    def node(name: str) -> dict[str, str]:
        """Extra headers of a request that is this node of the declared graph."""
        return {"X-Saga-Node": name}

    def agent(self, name: str) -> "Session":
        """A sub-agent: a conversation of its own in the same workflow, started by this one. Each call makes another.

        Raises ValueError for a name that is empty or too long.
        """
        if not name.strip() or not name.isprintable() or not name.isascii():
            raise ValueError(f"an agent's name is {name!r}: give one of printable ASCII characters")
        made = Session(
            self.gateway,
            self.workflow_id,
            checked_id(self._names.unique(f"{self.session_id}/{name.strip()}")),
            parent_id=self.session_id,
            deadline_s=self._deadline_s,
            explain=self._explain,
            options=self._options,
            names=self._names,
        )
        made._above = self
        self._agents[made.session_id] = made
        return made

    def receipt(self, step_id: str) -> Receipt:
        """Of a step of an `explain=True` workflow, by the `X-Saga-Step` of its answer. Raises GatewayError."""
        return Receipt.of(self.gateway.receipt(step_id))

    # --- clients -----------------------------------------------------------------------------------------------

    @cached_property
    def openai(self) -> "OpenAI":
        """OpenAI's client. Raises ExtraMissingError."""
        made: OpenAI = needed("openai", "openai", "client").OpenAI(**self._openai_options)
        return made

    @cached_property
    def async_openai(self) -> "AsyncOpenAI":
        """The same for `await`."""
        made: AsyncOpenAI = needed("openai", "openai", "client").AsyncOpenAI(**self._openai_options)
        return made

    @cached_property
    def anthropic(self) -> "Anthropic":
        """Anthropic's client. Raises ExtraMissingError."""
        made: Anthropic = needed("anthropic", "anthropic", "client").Anthropic(**self._anthropic_options)
        return made

    @cached_property
    def async_anthropic(self) -> "AsyncAnthropic":
        """The same for `await`."""
        library = needed("anthropic", "anthropic", "client")
        made: AsyncAnthropic = library.AsyncAnthropic(**self._anthropic_options)
        return made

    @property
    def _openai_options(self) -> dict[str, Any]:
        return {**self._anthropic_options, "base_url": f"{self.gateway.base_url}/v1"}

    @property
    def _anthropic_options(self) -> dict[str, Any]:
        given = dict(self._options)
        headers = {**given.pop("default_headers", {}), **self.headers}
        return {
            **given,
            "base_url": self.gateway.base_url,
            "api_key": self.gateway.api_key,
            "default_headers": headers,
        }

    # --- frameworks --------------------------------------------------------------------------------------------

    def langgraph(self, model: str, **options: Any) -> "ChatOpenAI":  # noqa: ANN401 - ChatOpenAI's own
        """A chat model for LangGraph and LangChain. `options`: ChatOpenAI's. Raises ExtraMissingError."""
        library = needed("langchain_openai", "langchain-openai", "langgraph")
        openai = needed("openai", "openai", "client")
        given = {**self._options, **options}
        if not {"http_client", "http_async_client"} & given.keys():  # it shares and never closes its own
            self._connections = self._connections or (openai.DefaultHttpxClient(), openai.DefaultAsyncHttpxClient())
            given["http_client"], given["http_async_client"] = self._connections
        headers = {**given.pop("default_headers", {}), **self.headers}
        made: ChatOpenAI = library.ChatOpenAI(
            model=model,
            base_url=f"{self.gateway.base_url}/v1",
            api_key=self.gateway.api_key,
            default_headers=headers,
            **given,
        )
        return made

    def agents_sdk(self, model: str, *, responses: bool = False) -> "Model":
        """A model for an `Agent` of the OpenAI Agents SDK, or for its RunConfig. Raises ExtraMissingError.

        `responses`: talk by /v1/responses instead of chat completions.
        """
        library = needed("agents", "openai-agents", "agents")
        kind = library.OpenAIResponsesModel if responses else library.OpenAIChatCompletionsModel
        made: Model = kind(model=model, openai_client=self.async_openai)
        return made

    # --- its end -----------------------------------------------------------------------------------------------

    def end(self) -> bool:
        """The session is over. False, and a log line, when the gateway could not be told: silence ends it, too."""
        return self._tell_end(self.session_id)

    def _tell_end(self, session_id: str | None) -> bool:
        try:
            self.gateway.end(self.workflow_id, session_id)
        except GatewayError as error:
            log.warning("could not end %s: %s", session_id or self.workflow_id, error)
            return False
        return True

    def close(self) -> None:
        """Close the connections of its blocking clients, and of its agents'."""
        for agent in tuple(self._agents.values()):
            agent.close()
        for name in ("openai", "anthropic"):
            made = self.__dict__.pop(name, None)
            if made is not None:
                made.close()
        if self._connections is not None:
            self._connections[0].close()

    async def aclose(self) -> None:
        """Close the connections of all its clients, and of its agents'."""
        for agent in tuple(self._agents.values()):
            await agent.aclose()
        self.close()
        for name in ("async_openai", "async_anthropic"):
            made = self.__dict__.pop(name, None)
            if made is not None:
                await made.close()
        if self._connections is not None:
            await self._connections[1].aclose()
            self._connections = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._leave()
        self.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
        self._leave()
        await asyncio.to_thread(self.end)

    def _leave(self) -> None:
        if self._above is not None:
            self._above._agents.pop(self.session_id, None)  # noqa: SLF001 - as above


def checked_id(name: str) -> str:
    """The id. Raises ValueError that names the limit."""
    if len(name) > MAX_ID_CHARS:
        raise ValueError(f"{name[:40]!r}... has {len(name)} characters: an id has at most {MAX_ID_CHARS}")
    return name


MAX_ID_CHARS = 128  # as the gateway takes them
