"""The live workflows that a graph process follows, and when they are let go. Pure.

Bounded three times: workflows (of the tenant with the most, the one longest unseen goes, so that no tenant crowds out
another), nodes of all graphs (of the longest unseen workflows all but the latest go), and time without a sign of life:
after an hour of silence a workflow counts as over, but for a day it is remembered, in case that it comes back.
"""

from collections import OrderedDict
from typing import Final

from saga.contract.ids import RootId, TenantId
from saga.graph.aeg import Aeg

FORGET_S: Final = 3_600.0  # without a sign of life a workflow counts as over
REMEMBER_S: Final = 24 * 3_600.0  # and is not even remembered
MAX_WORKFLOWS: Final = 100_000
MAX_ALL_NODES: Final = 2_000_000  # of some 300 bytes
KEPT_NODES: Final = 8  # of a workflow whose nodes make room
ROOM_SHARE: Final = 0.05  # that is made at once


class Following:
    """Workflows by root, the one longest unseen first."""

    def __init__(self) -> None:
        self.workflows: OrderedDict[RootId, Aeg] = OrderedDict()
        self._silent: OrderedDict[RootId, Aeg] = OrderedDict()
        self._roots: dict[TenantId, OrderedDict[RootId, None]] = {}
        self._nodes = 0

    def seen(self, root: RootId, tenant: TenantId, now_s: float) -> Aeg | None:
        """A sign of life of a workflow, perhaps its first. None: it is another tenant's."""
        aeg = self.workflows.get(root) or self._silent.get(root)
        if aeg is None:
            aeg = self.workflows[root] = Aeg(root, tenant, now_s)
            self._roots.setdefault(tenant, OrderedDict())[root] = None
            return aeg
        if aeg.tenant != tenant:
            return None
        aeg.seen_s = now_s
        if root in self._silent:
            self.workflows[root] = self._silent.pop(root)
        else:
            self.workflows.move_to_end(root)
        self._roots[tenant].move_to_end(root)
        return aeg

    def excess(self) -> Aeg | None:
        """A workflow that has to go because there are too many; the caller drops it."""
        if len(self.workflows) + len(self._silent) <= MAX_WORKFLOWS:
            return None
        most = max(len(roots) for roots in self._roots.values())
        root = next(next(iter(roots)) for roots in self._roots.values() if len(roots) == most)
        return self.workflows.get(root) or self._silent[root]

    def forgotten(self, now_s: float) -> Aeg | None:
        """A workflow that need not even be remembered; the caller drops it."""
        oldest = next(iter(self._silent.values()), None)
        return oldest if oldest is not None and now_s - oldest.seen_s >= REMEMBER_S else None

    def fell_silent(self, now_s: float) -> Aeg | None:
        """A workflow that has not given a sign of life for too long. It is told once, and only remembered then."""
        oldest = next(iter(self.workflows.values()), None)
        if oldest is None or now_s - oldest.seen_s < FORGET_S:
            return None
        del self.workflows[oldest.root]
        self._silent[oldest.root] = oldest
        self._nodes -= oldest.trim(KEPT_NODES)
        return oldest

    @property
    def next_silent_s(self) -> float:
        """When one will have been silent for too long."""
        return next(iter(self.workflows.values())).seen_s + FORGET_S if self.workflows else float("inf")

    def drop(self, aeg: Aeg) -> None:
        """Follow it no more."""
        (self.workflows if aeg.root in self.workflows else self._silent).pop(aeg.root)
        self._nodes -= len(aeg.nodes)
        roots = self._roots[aeg.tenant]
        del roots[aeg.root]
        if not roots:
            del self._roots[aeg.tenant]

    def grew(self, nodes: int) -> None:
        """A graph has so many more nodes."""
        self._nodes += nodes
        if self._nodes > MAX_ALL_NODES:
            for aeg in self.workflows.values():
                self._nodes -= aeg.trim(KEPT_NODES)
                if self._nodes <= MAX_ALL_NODES * (1 - ROOM_SHARE):
                    break

    def check(self) -> None:
        """Raise AssertionError where bounds or orders are broken."""
        every = [*self._silent.values(), *self.workflows.values()]
        seen = [aeg.seen_s for aeg in every]
        if seen != sorted(seen):
            raise AssertionError("workflows are not in the order of their last sign of life")
        if len(every) > MAX_WORKFLOWS or self._nodes > MAX_ALL_NODES:
            raise AssertionError("more workflows or nodes than allowed")
        if sum(len(aeg.nodes) for aeg in every) != self._nodes:
            raise AssertionError("nodes are miscounted")
        if sum(map(len, self._roots.values())) != len(every):
            raise AssertionError("workflows of tenants are miscounted")
