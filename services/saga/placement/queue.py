"""Steps that wait for a slot, lowest tag first. Used by placement's state, one queue per home and one per pool."""

from heapq import heapify, heappop, heappush, nsmallest

from saga.contract.ids import StepId
from saga.contract.messages import Tag


class TagQueue:
    """A heap whose entries may be removed by step: `remove` is O(1), the heap forgets lazily."""

    __slots__ = ("_heap", "_tags")

    def __init__(self) -> None:
        self._tags: dict[StepId, Tag] = {}
        self._heap: list[tuple[float, float, StepId]] = []

    def __len__(self) -> int:
        return len(self._tags)

    def __contains__(self, step_id: StepId) -> bool:
        return step_id in self._tags

    def push(self, step_id: StepId, tag: Tag) -> None:
        """Add the step, or change its tag."""
        self._tags[step_id] = tag
        heappush(self._heap, (tag.virtual_start_s, tag.order, step_id))
        if len(self._heap) > 64 + 2 * len(self._tags):
            self._heap = [(t.virtual_start_s, t.order, s) for s, t in self._tags.items()]
            heapify(self._heap)

    def remove(self, step_id: StepId) -> None:
        """Take the step out, if it is in."""
        self._tags.pop(step_id, None)

    def head(self) -> StepId | None:
        """The step with the lowest tag."""
        while self._heap:
            virtual_start_s, order, step_id = self._heap[0]
            tag = self._tags.get(step_id)
            if tag is not None and tag.virtual_start_s == virtual_start_s and tag.order == order:
                return step_id
            heappop(self._heap)
        return None

    def oldest(self) -> StepId | None:
        """The step that has been in for longest, whatever its tag."""
        return next(iter(self._tags), None)

    def first(self, count: int) -> list[StepId]:
        """So many of them, lowest tag first."""
        if len(self._tags) <= count:
            return self.steps()
        return nsmallest(count, self._tags, key=lambda s: (self._tags[s].virtual_start_s, self._tags[s].order, s))

    def steps(self) -> list[StepId]:
        """All of them, lowest tag first."""
        return sorted(self._tags, key=lambda s: (self._tags[s].virtual_start_s, self._tags[s].order, s))
