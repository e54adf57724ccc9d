"""What steps teach the models of a session's levels: its class, its tenant, and all. Pure; told by `state`.

Durations and tokens are bounded before they get here. The model of all learns a tool by its name only once its tenant
calls it often: no tenant can fill it with names.
"""

from typing import Final

from saga.contract.ids import TenantId
from saga.graph.aeg import Aeg, Session
from saga.graph.models import MAX_CHILDREN, OTHER, START, Model
from saga.graph.shelf import GLOBAL, Shelf
from saga.graph.situation import NO_TOOL
from saga.graph.sketch import Sketch, bucket_of

OFTEN: Final = 8  # outcomes after which a tenant's tool has a name among all tenants
CLASS_CHARS: Final = 64
Levels = tuple[Model, ...]
_ALWAYS: Final = frozenset({NO_TOOL, START})


class Learning:
    """Teaches the models on a shelf."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def levels(self, tenant: TenantId, session: Session) -> Levels:
        """Models that learn from a session, from the narrowest to the widest."""
        return self._shelf.levels(tenant, session.agent_class)

    def ended(self, levels: Levels, session: Session) -> None:
        """The session is over, or taken to be."""
        session.counted_end = session.steps
        context = session.context
        for model, tool in zip(levels, _names(levels, session.tool), strict=True):
            model.saw_outcome(model.tool(tool), session.steps, context, -1, ended=True)
            self._shelf.dirty[model.name] = None

    def returned(self, levels: Levels, session: Session, gap_s: float) -> None:
        """Another step of the session is here. Negative gap: unknown."""
        self.goes_on(levels, session)
        bucket = bucket_of(gap_s) if gap_s >= 0 else -1
        context = session.context
        for model, tool in zip(levels, _names(levels, session.tool), strict=True):
            model.saw_outcome(model.tool(tool), session.steps, context, bucket, session.number, ended=False)
            self._shelf.dirty[model.name] = None

    def goes_on(self, levels: Levels, session: Session) -> None:
        """A sign of life after what was taken for the end."""
        if session.counted_end:
            for model, tool in zip(levels, _names(levels, session.tool), strict=True):
                model.took_end_back(tool, session.counted_end, session.context)
            session.counted_end = 0

    def stepped(self, levels: Levels, session: Session, tool: str, growth_tokens: int, modelled_s: float) -> None:
        """The session's next step is over and has called `tool`. Negative: unknown."""
        before = session.tool if session.steps else START
        names = zip(levels, _names(levels, before), _names(levels, tool), strict=True)
        for level, (model, name, next_name) in enumerate(names):
            follows = model.tool(name)
            edge = follows.edge(model.tool(next_name).number)
            edge.count += 1
            if level == 0 and session.ready_gap_s >= 0:
                if edge.gaps is None:
                    edge.gaps = Sketch()
                edge.gaps.add(session.ready_gap_s, session.number)
            if growth_tokens >= 0 and session.steps:
                follows.growth_tokens.add(growth_tokens)
                if level == 0:
                    model.growth_tokens.add(growth_tokens)
            if modelled_s >= 0:
                model.modelled_s.add(modelled_s)
            self._shelf.dirty[model.name] = None

    def spawned(self, aeg: Aeg, session: Session) -> None:
        """A sub-agent's session begins: its class is a child of what the session above called last."""
        above = aeg.above(session)
        if above is None or not above.steps:
            return
        model = self.levels(aeg.tenant, above)[0]
        children = model.tool(above.tool).children
        name = session.agent_class[:CLASS_CHARS]
        name = name if name in children or len(children) < MAX_CHILDREN else OTHER
        children[name] = children.get(name, 0) + 1


def _names(levels: Levels, tool: str) -> tuple[str, ...]:
    """What the tool is called at each level."""
    widest = levels[-1]
    if tool in widest.tools or tool in _ALWAYS or widest.name != GLOBAL:
        return (tool,) * len(levels)
    known = levels[-2].tools.get(tool)
    name = tool if known is not None and known.count >= OFTEN else OTHER
    return (tool,) * (len(levels) - 1) + (name,)
