"""What of an access trace a pool of some size can hold at all, and what an infinite one would hit. No policy in it.

Pages in use cannot be evicted, so which calls find room beside the others in use depends on the trace and the size
alone. A call that finds none goes by the cache: it neither looks up nor stores, and is counted apart. Called by
`bench`, once for each capacity; all policies then run the same stream.
"""

from msgspec import Struct

from saga.sim.cache.access import AccessTrace, Event


class Stream(Struct, frozen=True):
    """The accesses of the calls that fit, in order.

    By call: `ends`, the segment it leaves in the cache (the prompt's, if its answer found no room); `known_pages`, the
    leading pages of its prompt that had been cached once.
    """

    trace: AccessTrace
    capacity_pages: int
    events: list[Event]
    ends: list[int]
    known_pages: list[int]
    unfit_calls: int
    unfit_tokens: int  # prompt tokens of those
    unfit_answers: int  # answers not stored

    @property
    def prompt_pages(self) -> int:
        """Pages of all prompts that fit."""
        return sum(self.trace.calls[e.call].prompt_pages for e in self.events if not e.is_end)


def fitted(trace: AccessTrace, capacity_pages: int) -> Stream:
    """The stream for a pool of that many pages."""
    segments, calls = trace.segments, trace.calls
    pages, depth, parent = segments.pages, segments.depth_pages, segments.parent
    locks = [0] * len(pages)
    cached_once = [False] * len(pages)
    cached_once[0] = True
    in_use = 0
    events: list[Event] = []
    ends = [call.full for call in calls]
    known_pages = [0] * len(calls)
    running = [False] * len(calls)
    unfit_calls = unfit_pages = unfit_answers = 0
    for event in trace.events:
        call = calls[event.call]
        if not event.is_end:
            path = segments.path(call.prompt)
            need = sum(pages[s] for s in path if not locks[s])
            if in_use + need > capacity_pages:
                unfit_calls += 1
                unfit_pages += call.prompt_pages
                continue
            running[event.call] = True
            in_use += need
            for s in path:
                locks[s] += 1
            known = call.prompt
            while not cached_once[known]:
                known = parent[known]
            known_pages[event.call] = depth[known]
        elif running[event.call]:
            path = segments.path(call.prompt)
            answer = segments.path(call.full)
            del answer[len(answer) - len(path) :]
            need = sum(pages[s] for s in answer if not locks[s])
            if in_use + need > capacity_pages:
                unfit_answers += 1
                ends[event.call] = call.prompt
            for s in path:
                locks[s] -= 1
                in_use -= 0 if locks[s] else pages[s]
        else:
            continue
        events.append(event)
        new = ends[event.call] if event.is_end else call.prompt
        while not cached_once[new]:
            cached_once[new] = True
            new = parent[new]
    return Stream(
        trace,
        capacity_pages,
        events,
        ends,
        known_pages,
        unfit_calls,
        unfit_pages * trace.page_tokens,
        unfit_answers,
    )
