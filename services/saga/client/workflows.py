"""A workflow from its first request to its end. `workflow(...)` is where everything begins."""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from saga.client.gateway import Gateway, nodes_of
from saga.client.sessions import Session, checked_id

BASE_URL: Final = "http://127.0.0.1:8080"  # of `saga up`
ANY_KEY: Final = "none"  # where no tenants are set up, any text will do


class Workflow(Session):
    """One agent task with all its sub-agents; itself the conversation that it begins with."""

    def declare(
        self,
        nodes: Iterable[Mapping[str, object] | str],
        edges: Iterable[Mapping[str, object]] = (),
        *,
        agent_class: str | None = None,
    ) -> dict[str, Any]:
        """Say what it is going to do (docs/agent-graphs.md has the fields); a name alone is a node.

        Returns where it stands. Raises GatewayError: 422 names the node that is wrong, 503 that nobody listens, which
        keeps no workflow from running.
        """
        said: dict[str, object] = {"id": self.workflow_id, "nodes": nodes_of(nodes), "edges": list(edges)}
        if agent_class is not None:
            said["class"] = agent_class
        if self._deadline_s is not None:
            said["deadline_s"] = self._deadline_s
        return self.gateway.declare(said)

    def show(self) -> dict[str, Any]:
        """Where it stands. Raises GatewayError, status 404 before its first step is known."""
        return self.gateway.show(self.workflow_id)

    def end(self) -> bool:
        """The workflow is over, with all its sessions."""
        return self._tell_end(None)


def workflow(
    name: str | None = None,
    *,
    deadline_s: float | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    explain: bool = False,
    **options: Any,  # noqa: ANN401 - whatever the clients take
) -> Workflow:
    """A workflow, for a `with` or `async with` block, at whose end it is over.

    `name`: of this one run, as two that run at a time under one name are one; left out, one is made up.
    `deadline_s`: for all of it, from its first request. `base_url`: the gateway's, else SAGA_BASE_URL, else where
    `saga up` listens. `api_key`: the tenant's, else SAGA_API_KEY. `explain`: ask for a receipt of each step.
    `options`: for every client, as `timeout` or `max_retries`. Raises ValueError for what cannot be.
    """
    if deadline_s is not None and not 0 < deadline_s < float("inf"):
        raise ValueError(f"deadline_s is {deadline_s}: give a positive number of seconds")
    made_up = f"wf-{os.urandom(8).hex()}"
    known = made_up if name is None else name.strip()
    if not known or not known.isprintable() or not known.isascii():
        raise ValueError(f"the workflow's name is {name!r}: give one of printable ASCII characters")
    gateway = Gateway(
        base_url or os.environ.get("SAGA_BASE_URL") or BASE_URL,
        api_key or os.environ.get("SAGA_API_KEY") or ANY_KEY,
    )
    return Workflow(gateway, checked_id(known), known, deadline_s=deadline_s, explain=explain, options=options)
