"""A gateway's own endpoints, `/v1/saga/...`, over plain HTTP. Blocking, and without any library."""

import json
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

from saga.client.errors import GatewayError

TIMEOUT_S: Final = 5.0


class Gateway:
    """One gateway, or an address that leads to several."""

    def __init__(self, base_url: str, api_key: str, timeout_s: float = TIMEOUT_S) -> None:
        """`base_url`: without `/v1`. Raises ValueError for an address that is no HTTP URL."""
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url is {base_url!r}: give the gateway's, as http://127.0.0.1:8080")
        self.api_key = api_key
        self._timeout_s = timeout_s
        local = self.base_url.split("//", 1)[1].split(":", 1)[0].split("/", 1)[0] in ("127.0.0.1", "localhost")
        self._opener = build_opener(ProxyHandler({})) if local else build_opener()

    def declare(self, declaration: Mapping[str, object]) -> dict[str, Any]:
        """What `POST /v1/saga/workflows` answers (docs/agent-graphs.md). Raises GatewayError."""
        return self._ask("POST", "/v1/saga/workflows", declaration)

    def show(self, workflow_id: str) -> dict[str, Any]:
        """Where a workflow stands. Raises GatewayError, status 404 when nobody knows it."""
        return self._ask("GET", f"/v1/saga/workflows/{quote(workflow_id, safe='')}")

    def end(self, workflow_id: str, session_id: str | None = None) -> None:
        """The workflow is over, or this session of it. Raises GatewayError."""
        body = {} if session_id is None else {"session": session_id}
        self._ask("POST", f"/v1/saga/workflows/{quote(workflow_id, safe='')}/end", body)

    def receipt(self, step_id: str) -> dict[str, Any]:
        """Of a step that was sent with `X-Saga-Explain`. Raises GatewayError, status 404 when it is not kept."""
        return self._ask("GET", f"/v1/saga/steps/{quote(step_id, safe='')}")

    def _ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"}
        request = Request(self.base_url + path, data=data, headers=headers, method=method)  # noqa: S310 - http, see above
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                answer: dict[str, Any] = json.loads(response.read())
        except HTTPError as error:
            raise _refused(error) from None
        except (URLError, HTTPException, OSError, ValueError) as error:
            raise GatewayError(0, f"The gateway at {self.base_url} does not answer: {error}.") from None
        return answer


def _refused(error: HTTPError) -> GatewayError:
    try:
        told = json.loads(error.read())["error"]
        return GatewayError(error.code, told["message"], code=told.get("code") or "", param=told.get("param") or "")
    except (ValueError, KeyError, TypeError, OSError):
        return GatewayError(error.code, f"The gateway answered {error.code}.")


def nodes_of(nodes: Iterable[Mapping[str, object] | str]) -> list[Mapping[str, object]]:
    """As a declaration has them; a name alone is a node."""
    return [{"id": node} if isinstance(node, str) else node for node in nodes]
