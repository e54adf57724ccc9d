"""Makes candidates of workers: what they hold of a step, or soon will, and how loaded they are.

Called by `dispatch` and `moves`; changes nothing but what it remembers.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Final

from msgspec import structs

from saga.contract.ids import NO_WORKER, WorkerId
from saga.contract.messages import StepReady
from saga.placement.board import Board
from saga.placement.candidate import Candidate
from saga.placement.records import Session, Step, Worker
from saga.placement.supersession import HASH_BYTES, shared_pages

LEAST_SHARED_TOKENS: Final = 256  # SGLang's prefetch_threshold: fewer are not read from a shared tier
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
        shared = self._in_tiers(session, resident)
        found = []
        for worker in workers:
            worker_id = worker.hello.worker_id
            if worker_id in resident or worker_id == home or worker_id in coming:
                pages = resident.get(worker_id, 0)
                candidate = self._candidate(worker, ready, home, pages, coming.get(worker_id, 0))
            else:
                if worker.plain is None:
                    worker.plain = self._candidate(worker, ready, NO_WORKER, 0, 0)
                candidate = worker.plain
            found.append(self._sharing(candidate, worker, ready, shared) if shared else candidate)
        return found

    def one(self, worker: Worker, step: Step, session: Session) -> Candidate:
        """A single worker."""
        ready = step.admitted.step
        pages = self._board.index.resident_pages(worker.hello.worker_id, session.hashes, session.stride)
        candidate = self._candidate(worker, ready, session.home, pages, 0)
        if not worker.hello.shared_tier:
            return candidate
        resident = self._board.index.match(session.hashes, session.stride)
        return self._sharing(candidate, worker, ready, self._in_tiers(session, resident))

    def _in_tiers(self, session: Session, resident: dict[WorkerId, int]) -> dict[str, int]:
        """Leading pages of the session's prompt that each shared tier should have, by its name.

        All that a worker of the tier caches is written there: what any of them holds now, and what the session's last
        step had there. No tier says what it drops; one that is much larger than the pools drops little of use.
        """
        pages: dict[str, int] = {}
        if not self._board.shares_tiers:
            return pages
        if session.kept_in and session.stride == 1:
            pages[session.kept_in] = shared_pages(session.kept, session.hashes)
        for worker_id, held in resident.items():
            worker = self._board.workers.get(worker_id)
            tier = worker.hello.shared_tier if worker is not None else ""
            if tier and held > pages.get(tier, 0):
                pages[tier] = held
        return pages

    def _sharing(self, candidate: Candidate, worker: Worker, step: StepReady, shared: dict[str, int]) -> Candidate:
        """The candidate with what it would read from its tier; unchanged when that is not worth a read."""
        hello = worker.hello
        pages = shared.get(hello.shared_tier, 0)
        tokens = cached_tokens(pages, hello.page_tokens, step.prompt_tokens) - candidate.cached_tokens
        if tokens * hello.shrink < LEAST_SHARED_TOKENS:
            return candidate
        return structs.replace(candidate, shared_tokens=tokens)

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
            shared_load_s_per_token=hello.shared_load_s_per_token,
            speed=hello.speed,
        )


def cached_tokens(pages: int, page_tokens: int, prompt_tokens: int) -> int:
    """Tokens of the prompt that need no prefill: whole pages, and never the last token."""
    return min(pages * page_tokens, max(0, prompt_tokens - 1) // page_tokens * page_tokens)
