"""A declared workflow from its JSON: understood, checked, and put into words for the graph service. Pure.

The graph of a workflow is what its steps depend on. Dependencies (edges without a probability) form no cycle; a loop is
an edge with a probability below 1, by which an agent ends it at last. `http_workflows.py` calls this; what is refused
is refused with 422 and names the node.
"""

import math
import re
from collections import OrderedDict
from difflib import get_close_matches
from typing import Final, TypeVar

import msgspec

from saga.contract.ids import MAX_ID_CHARS, RootId, SessionId, TenantId, scoped
from saga.contract.messages import WorkflowDeclared, WorkflowEnded
from saga.contract.workflow_messages import MAX_DECLARED_EDGES, MAX_DECLARED_NODES, DeclaredEdge, DeclaredNode
from saga.gateway.api_errors import ApiError, bad_json

MAX_NAME_CHARS: Final = 64  # of a node or an agent
MAX_TOOL_CHARS: Final = 128
MAX_TOKENS: Final = 10_000_000
MAX_GAP_S: Final = 30 * 86_400.0
MAX_DEADLINE_S: Final = 365 * 86_400.0
MAX_DEADLINES: Final = 10_000  # remembered
_CLASS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SUM_ERROR: Final = 1e-6
T = TypeVar("T")


class NodeFields(msgspec.Struct, forbid_unknown_fields=True):
    """One entry of `nodes`."""

    id: str
    tool: str | None = None
    agent: str = ""
    new_tokens: float | None = None
    gap_s: float | None = None


class EdgeFields(msgspec.Struct, forbid_unknown_fields=True):
    """One entry of `edges`."""

    source: str = msgspec.field(name="from")
    target: str = msgspec.field(name="to")
    probability: float | None = None


class WorkflowFields(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a declaration."""

    nodes: list[NodeFields]
    edges: list[EdgeFields] = []
    id: str | None = None
    agent_class: str | None = msgspec.field(name="class", default=None)
    deadline_s: float | None = None


_decoder = msgspec.json.Decoder(WorkflowFields)


def parse(body: bytes, tenant: TenantId, fresh: str) -> tuple[str, WorkflowDeclared]:
    """The workflow's id and the declaration in `body`; `fresh`: its id when it has none. Raises ApiError 400, 422."""
    fields = _read(_decoder, body)
    name = workflow_id(fields.id) if fields.id is not None else fresh
    if fields.agent_class is not None and not _CLASS.fullmatch(fields.agent_class):
        raise _wrong(
            "class", f"{fields.agent_class[:80]!r} is no class name: send 1 to 64 letters, digits, '.', _ or -"
        )
    nodes, edges = _nodes(fields.nodes), _edges(fields.edges, fields.nodes)
    _check_choices(edges)
    _check_cycles(nodes, edges)
    _check_reach(nodes, edges)
    return name, WorkflowDeclared(
        tenant=tenant,
        root=RootId(scoped(tenant, name)),
        agent_class=fields.agent_class or "",
        nodes=nodes,
        edges=edges,
        deadline_s=_number("deadline_s", fields.deadline_s, MAX_DEADLINE_S, or_else=0.0, above_zero=True),
    )


def workflow_id(text: str) -> str:
    """The id as `X-Saga-Workflow` takes it. Raises ApiError 422."""
    return _an_id("id", text)


def _an_id(param: str, text: str) -> str:
    name = text.strip()
    if not 0 < len(name) <= MAX_ID_CHARS or not name.isprintable():
        raise _wrong(param, f"an id has 1 to {MAX_ID_CHARS} printable characters, this one has {len(name)}")
    return name


def _read(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        said = bad_json(error)
        raise ApiError(422, said.message, code=said.code, param=said.param) from None
    except msgspec.DecodeError as error:
        raise bad_json(error) from None
    except UnicodeDecodeError:
        raise ApiError(400, "The body is not valid UTF-8. Send JSON in UTF-8.", code="invalid_json") from None
    except RecursionError:
        raise ApiError(400, "The body is nested too deeply. Send flatter JSON.", code="invalid_json") from None


class EndFields(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an end."""

    session: str | None = None


_end_decoder = msgspec.json.Decoder(EndFields)


def parse_end(name: str, body: bytes, tenant: TenantId) -> WorkflowEnded:
    """What is over: the workflow, or the session of it that `body` names. Raises ApiError 400, 422."""
    fields = _read(_end_decoder, body) if body.strip() else EndFields()
    session = SessionId(scoped(tenant, _an_id("session", fields.session))) if fields.session is not None else None
    return WorkflowEnded(
        tenant=tenant, root=RootId(scoped(tenant, workflow_id(name))), session=session or SessionId("")
    )


class Deadlines:
    """Deadlines of declared workflows, for steps that come without one. Bounded; the oldest go."""

    def __init__(self) -> None:
        self._known: OrderedDict[RootId, float] = OrderedDict()

    def hear(self, message: WorkflowDeclared) -> None:
        """A workflow was declared, at any gateway."""
        self._known.pop(message.root, None)
        if message.deadline_s > 0:
            self._known[message.root] = message.deadline_s
            if len(self._known) > MAX_DEADLINES:
                self._known.popitem(last=False)

    def of(self, root: RootId) -> float:
        """Seconds from the workflow's first step; 0: none."""
        return self._known.get(root, 0.0)


def _nodes(given: list[NodeFields]) -> tuple[DeclaredNode, ...]:
    if not 0 < len(given) <= MAX_DECLARED_NODES:
        raise _wrong("nodes", f"a workflow has 1 to {MAX_DECLARED_NODES} nodes, this one has {len(given)}", "too_large")
    seen: dict[str, int] = {}
    made = []
    for number, node in enumerate(given):
        at = f"nodes[{number}]"
        _name(f"{at}.id", node.id, MAX_NAME_CHARS)
        if node.id in seen:
            also = f"nodes[{seen[node.id]}]"
            raise _wrong(f"{at}.id", f"{also} is called '{node.id}' too: give each node its own id", "duplicate_node")
        seen[node.id] = number
        if node.tool:
            _name(f"{at}.tool", node.tool, MAX_TOOL_CHARS)
        if node.agent:
            _name(f"{at}.agent", node.agent, MAX_NAME_CHARS)
        made.append(
            DeclaredNode(
                id=node.id,
                tool=node.tool,
                agent=node.agent,
                new_tokens=_number(f"{at}.new_tokens", node.new_tokens, MAX_TOKENS, or_else=-1.0),
                gap_s=_number(f"{at}.gap_s", node.gap_s, MAX_GAP_S, or_else=-1.0),
            )
        )
    return tuple(made)


def _edges(given: list[EdgeFields], nodes: list[NodeFields]) -> tuple[DeclaredEdge, ...]:
    if len(given) > MAX_DECLARED_EDGES:
        raise _wrong(
            "edges", f"a workflow has at most {MAX_DECLARED_EDGES} edges, this one has {len(given)}", "too_large"
        )
    names = [node.id for node in nodes]
    known, seen = set(names), set()
    made = []
    for number, edge in enumerate(given):
        for end, name in (("from", edge.source), ("to", edge.target)):
            if name not in known:
                near = get_close_matches(name[:MAX_NAME_CHARS], names, 1) or names[:1]
                told = (
                    f"no node is called '{name[:MAX_NAME_CHARS]}': add it to nodes, or name one of them, as '{near[0]}'"
                )
                raise _wrong(f"edges[{number}].{end}", told, "unknown_node")
        if (edge.source, edge.target) in seen:
            told = f"there is an edge from '{edge.source}' to '{edge.target}' already: send one"
            raise _wrong(f"edges[{number}]", told, "duplicate_edge")
        seen.add((edge.source, edge.target))
        at = f"edges[{number}].probability"
        probability = _number(at, edge.probability, 1.0, or_else=-1.0, above_zero=True)
        made.append(DeclaredEdge(source=edge.source, target=edge.target, probability=probability))
    return tuple(made)


def _check_choices(edges: tuple[DeclaredEdge, ...]) -> None:
    sums: dict[str, float] = {}
    for edge in edges:
        if edge.probability >= 0:
            sums[edge.source] = sums.get(edge.source, 0.0) + edge.probability
    for name, total in sums.items():
        if total > 1.0 + _SUM_ERROR:
            told = (
                f"the choices of node '{name}' have probabilities that sum to {total:.3g}: at most one of them is taken"
            )
            raise _wrong(
                "edges", f"{told}, so make it 1 or less (what is missing to 1 ends there)", "invalid_probability"
            )


def _check_cycles(nodes: tuple[DeclaredNode, ...], edges: tuple[DeclaredEdge, ...]) -> None:
    """Dependencies, and choices without alternative, form no cycle."""
    targets: dict[str, list[str]] = {node.id: [] for node in nodes}
    waits_for = dict.fromkeys(targets, 0)
    for edge in edges:
        if not 0 <= edge.probability < 1.0:
            targets[edge.source].append(edge.target)
            waits_for[edge.target] += 1
    free = [name for name, count in waits_for.items() if not count]
    while free:
        for target in targets.pop(free.pop()):
            waits_for[target] -= 1
            if not waits_for[target]:
                free.append(target)
    if not targets:
        return
    sources = {target: name for name, them in targets.items() for target in them}  # each that is left has one left
    way: list[str] = [next(iter(targets))]
    while way[-1] not in way[:-1]:
        way.append(sources[way[-1]])
    cycle = way[way.index(way[-1]) :][::-1]
    told = f"node '{cycle[0]}' depends on itself: {' > '.join(cycle)}. Remove one of these edges, or, if this is a loop"
    raise _wrong("edges", f"{told} of the agent, give one of them a probability below 1", "cycle")


def _check_reach(nodes: tuple[DeclaredNode, ...], edges: tuple[DeclaredEdge, ...]) -> None:
    """A workflow begins where no edge leads to; when there is no such node, with the first."""
    targets: dict[str, list[str]] = {node.id: [] for node in nodes}
    for edge in edges:
        targets[edge.source].append(edge.target)
    led_to = {edge.target for edge in edges}
    todo = [name for name in targets if name not in led_to] or [nodes[0].id]
    reached = set(todo)
    while todo:
        new = [target for target in targets[todo.pop()] if target not in reached]
        reached.update(new)
        todo += new
    for number, node in enumerate(nodes):
        if node.id not in reached:
            told = f"no way leads to node '{node.id}' from where the workflow begins: add an edge to it, or remove it"
            raise _wrong(f"nodes[{number}]", told, "unreachable_node")


def _name(param: str, value: str, limit: int) -> None:
    if not 0 < len(value) <= limit or not value.isprintable():
        raise _wrong(param, f"a name has 1 to {limit} printable characters, {value[:40]!r} has {len(value)}")


def _number(param: str, value: float | None, limit: float, *, or_else: float, above_zero: bool = False) -> float:
    if value is None:
        return or_else
    if not math.isfinite(value) or not 0 <= value <= limit or (above_zero and value == 0):
        least = "above 0" if above_zero else "0 or more"
        raise _wrong(param, f"it is {value:g}: send a number {least}, at most {limit:g}")
    return value


def _wrong(param: str, message: str, code: str = "invalid_value") -> ApiError:
    return ApiError(422, f"'{param}': {message}.", param=param, code=code)
