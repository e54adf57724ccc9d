"""Makes candidates of workers: what they hold of a step, or soon will, and how loaded they are.

Called by `dispatch` and `moves`; changes nothing but what it remembers.
"""

from collections.abc import Iterable
from itertools import islice

from saga.contract.ids import NO_WORKER, WorkerId
from saga.contract.messages import StepReady
from saga.placement.board import Board
from saga.placement.candidate import Candidate
from saga.placement.records import Session, Step, Worker
from saga.placement.supersession import HASH_BYTES, shared_pages

MOST_COMPARED = 64  # steps under way that begin like this one, the latest: what may be on its way is a guess anyway


class Candidates:
    """Workers as policies see them."""

    def __init__(self, board: Board, lookahead: int) -> None:
        self._board = board
        self._lookahead = lookahead

    def of(self, workers: Iterable[Worker], step: Step, session: Session) -> list[Candidate]:
        """Most workers hold nothing of the step, and few change from one step without a home to the next."""
        ready = step.admitted.step
        home = session.home or step.admitted.home  # of one that has run nowhere: where its workflow has its budget
        resident = self._board.index.match(session.hashes, session.stride)
        coming = self._coming(step)
        found = []
        for worker in workers:
            worker_id = worker.hello.worker_id
            if worker_id in resident or worker_id == home or worker_id in coming:
                found.append(self._candidate(worker, ready, home, resident.get(worker_id, 0), coming.get(worker_id, 0)))
                continue
            if worker.plain is None:
                worker.plain = self._candidate(worker, ready, NO_WORKER, 0, 0)
            found.append(worker.plain)
        return found

    def one(self, worker: Worker, step: Step, session: Session) -> Candidate:
        """A single worker."""
        pages = self._board.index.resident_pages(worker.hello.worker_id, session.hashes, session.stride)
        return self._candidate(worker, step.admitted.step, session.home, pages, 0)

    def _coming(self, step: Step) -> dict[WorkerId, int]:
        """Pages of the step's prompt that others, which run now, have in common with it, by worker."""
        pages: dict[WorkerId, int] = {}
        if not step.chain:
            return pages
        alike = self._board.alike(step.chain[:HASH_BYTES])
        for lease_id in islice(reversed(alike), MOST_COMPARED):
            lease = self._board.leases[lease_id]
            worker_id = lease.worker_id
            shared = shared_pages(alike[lease_id], step.chain)
            if shared > pages.get(worker_id, 0):
                pages[worker_id] = shared
        return pages

    def _candidate(self, worker: Worker, step: StepReady, home: WorkerId, pages: int, coming: int) -> Candidate:
        hello = worker.hello
        return Candidate(
            worker_id=hello.worker_id,
            is_home=hello.worker_id == home,
            cached_tokens=cached_tokens(pages, hello.page_tokens, step.prompt_tokens),
            coming_tokens=cached_tokens(coming, hello.page_tokens, step.prompt_tokens),
            leases=len(worker.leases),
            slots=hello.max_running + self._lookahead,
            leased_tokens=worker.leased_tokens,
            queued_steps=len(self._board.at_home.get(hello.worker_id, ())),
            leased_engine_s=worker.leased_engine_s,
            queued_engine_s=worker.queued_engine_s,
            homed_tokens=worker.homed_tokens,
            homed_sessions=worker.homed_sessions,
            kv_tokens=hello.kv_tokens,
            prompt_s_per_token=hello.cost.prompt_s_per_token,
            output_s_per_token=hello.cost.output_s_per_token,
            context_s_per_token=hello.cost.context_s_per_token,
            load_s_per_token=hello.load_s_per_token,
            speed=hello.speed,
        )


def cached_tokens(pages: int, page_tokens: int, prompt_tokens: int) -> int:
    """Tokens of the prompt that need no prefill: whole pages, and never the last token."""
    return min(pages * page_tokens, max(0, prompt_tokens - 1) // page_tokens * page_tokens)
