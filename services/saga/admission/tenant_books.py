"""What each tenant uses, and who of it waits for its quotas. Decides nothing: `quotas.py` does.

Kept by `roster.py` (workflows) and `stepbook.py` (steps), so that it is true whoever admits. A tenant with quotas has
two queues of its own, both oldest workflow first: the *bench*, of workflows that may not stand for the active set yet,
and the steps *held* though their workflow is active.
"""

from bisect import bisect_left, insort
from collections.abc import Callable

import msgspec

from saga.admission.minute import Minute
from saga.admission.records import Step, Workflow
from saga.contract.ids import RootId, StepId, TenantId
from saga.contract.messages import StepReady
from saga.contract.tenants import NO_TERMS, TenantTerms
from saga.kernel.steps import Move, StepState

Age = tuple[float, RootId]
IDLE_TENANTS = 10_000  # remembered without a step, a workflow or terms


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What one step takes of its tenant's quotas. `at_s`: when it took it."""

    kv_tokens: int
    input_tokens: int
    output_tokens: int
    at_s: float


class Held(msgspec.Struct, frozen=True, order=True, gc=False):
    """A step of an active workflow that waits for a quota."""

    age: Age
    since_s: float
    step_id: StepId


class TenantBook:
    """One tenant."""

    __slots__ = (
        "active",
        "bench",
        "called",
        "held",
        "held_for",
        "input_minute",
        "kept",
        "kept_tokens",
        "known",
        "limited",
        "output_minute",
        "refused",
        "reserved_tokens",
        "running",
        "running_tokens",
        "standing",
        "tenant",
        "terms",
        "waiting",
    )

    def __init__(self, tenant: TenantId) -> None:
        self.tenant = tenant
        self.terms: TenantTerms = NO_TERMS
        self.limited = False  # a quota is set
        self.known = 0  # workflows
        self.standing: dict[RootId, Workflow] = {}  # in the active set or next in line for it: its claimants
        self.active: dict[RootId, Workflow] = {}  # of those, the ones in the set
        self.bench: list[Age] = []  # workflows with a step that may not stand yet
        self.called: dict[RootId, Claim] = {}  # of those that stand, the ones whose first step is not admitted yet
        self.held: list[Held] = []
        self.held_for = ""  # the quota that stopped the first in line, when last looked at
        self.waiting = 0  # steps
        self.running: dict[StepId, Claim] = {}  # steps admitted and not over
        self.running_tokens = 0  # KV of those
        self.reserved_tokens = 0  # that those may generate
        self.kept: dict[RootId, int] = {}  # KV kept for sessions that are to come back, of active workflows
        self.kept_tokens = 0
        self.input_minute = Minute()
        self.output_minute = Minute()
        self.refused = 0  # steps, for a quota

    def agree(self, terms: TenantTerms) -> None:
        """Other terms hold from now on."""
        self.terms = terms
        self.limited = bool(terms.limits)

    @property
    def kv_tokens(self) -> int:
        """KV of steps that run, and kept between steps."""
        return self.running_tokens + self.kept_tokens

    def claim_of(self, ready: StepReady, now_s: float) -> Claim:
        """What the step would take. One that may answer at more length than a quota has, takes all that there is."""
        terms, prompt_tokens, output_tokens = self.terms, ready.prompt_tokens, ready.max_output_tokens
        kv_tokens, minute_tokens = prompt_tokens + output_tokens, output_tokens
        if terms.kv_tokens is not None:
            kv_tokens = min(kv_tokens, max(terms.kv_tokens, prompt_tokens))
        if terms.output_tokens_per_minute is not None:
            minute_tokens = min(minute_tokens, terms.output_tokens_per_minute)
        return Claim(kv_tokens, prompt_tokens, minute_tokens, now_s)

    def holds(self, step_id: StepId) -> bool:
        """Whether the step waits though its workflow is active."""
        return any(held.step_id == step_id for held in self.held)

    def keep(self, root: RootId, tokens: int) -> None:
        """KV that the workflow keeps between steps is now this."""
        self.kept_tokens += tokens - self.kept.pop(root, 0)
        if tokens:
            self.kept[root] = tokens

    def forget_past(self, now_s: float) -> None:
        """Minutes that are over."""
        self.input_minute.forget(now_s)
        self.output_minute.forget(now_s)

    def idle(self, now_s: float) -> bool:
        """Nothing is lost by forgetting it."""
        self.forget_past(now_s)
        minutes = self.input_minute.tokens or self.output_minute.tokens
        return not (self.known or self.running or self.waiting or minutes) and self.terms is NO_TERMS


class TenantBooks:
    """All of a cell. `now_s`: of the event at hand, set by `state.py`."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.dirty: dict[TenantId, None] = {}  # tenants for which something may go on now
        self.queued: dict[TenantId, None] = {}  # those that have somebody held or on the bench, or had
        self._books: dict[TenantId, TenantBook] = {}

    def of(self, tenant: TenantId) -> TenantBook:
        """The tenant's book, made when there is none."""
        book = self._books.get(tenant)
        if book is None:
            if len(self._books) >= IDLE_TENANTS:
                self._books = {t: kept for t, kept in self._books.items() if not kept.idle(self.now_s)}
            book = self._books[tenant] = TenantBook(tenant)
        return book

    def all(self) -> dict[TenantId, TenantBook]:
        """By tenant."""
        return self._books

    # --- workflows, told by the roster -------------------------------------------------------------------------

    def known(self, workflow: Workflow, by: int) -> None:
        """One more workflow is known, or one less."""
        self.of(workflow.tenant).known += by

    def stands(self, workflow: Workflow) -> bool:
        """It has a claim. Whether it may stand for the active set; one that may not is on the bench if it has a step,
        and comes again when `quotas.py` calls it."""
        book = self.of(workflow.tenant)
        if workflow.root in book.standing:
            return True
        if not book.limited or workflow.running():
            _remove(book.bench, workflow.age_key)
            book.standing[workflow.root] = workflow
            return True
        if workflow.steps:
            self.bench(workflow)
        else:  # it comes again with its next step
            _remove(book.bench, workflow.age_key)
        return False

    def bench(self, workflow: Workflow) -> None:
        """It waits for its tenant's quotas."""
        book = self.of(workflow.tenant)
        if not _has(book.bench, workflow.age_key):
            insort(book.bench, workflow.age_key)
        self.dirty[book.tenant] = self.queued[book.tenant] = None

    def called(self, workflow: Workflow, claim: Claim) -> None:
        """Its turn has come: it stands, and its first step will take this."""
        book = self.of(workflow.tenant)
        _remove(book.bench, workflow.age_key)
        book.standing[workflow.root] = workflow
        book.called[workflow.root] = claim

    def joined(self, workflow: Workflow) -> None:
        """It is in the active set."""
        self.of(workflow.tenant).active[workflow.root] = workflow

    def paused(self, workflow: Workflow) -> None:
        """It is out of the set: its steps are not held any more, they wait with it."""
        book = self.of(workflow.tenant)
        book.active.pop(workflow.root, None)
        book.keep(workflow.root, 0)
        if book.held:
            book.held = [held for held in book.held if held.step_id not in workflow.steps]
        self._stir(book)

    def left(self, workflow: Workflow) -> None:
        """It has no claim any more."""
        book = self.of(workflow.tenant)
        book.standing.pop(workflow.root, None)
        book.called.pop(workflow.root, None)
        _remove(book.bench, workflow.age_key)
        self._stir(book)

    def keeps(self, workflow: Workflow, tokens: int) -> None:
        """An active workflow keeps so much KV between its steps."""
        book = self.of(workflow.tenant)
        if book.kept.get(workflow.root, 0) != tokens:
            book.keep(workflow.root, tokens)
            self._stir(book)

    # --- steps, told by the step book --------------------------------------------------------------------------

    def waits(self, step: Step) -> None:
        """A new step, not admitted."""
        self.of(step.step.tenant).waiting += 1

    def holds(self, workflow: Workflow, step: Step) -> bool:
        """The step of an active workflow could go on. Whether its tenant has quotas, so that it is held first."""
        book = self.of(workflow.tenant)
        if not book.limited:
            return False
        if not book.holds(step.step.step_id):
            insort(book.held, Held(workflow.age_key, self.now_s, step.step.step_id))
        self.dirty[book.tenant] = self.queued[book.tenant] = None
        return True

    def admitted(self, step: Step) -> None:
        """The step has gone on, or its gateway says that it runs."""
        book = self.of(step.step.tenant)
        claim = book.claim_of(step.step, self.now_s)
        book.waiting -= 1
        book.running[step.step.step_id] = claim
        book.running_tokens += claim.kv_tokens
        book.reserved_tokens += claim.output_tokens
        book.input_minute.add(self.now_s, claim.input_tokens)
        book.called.pop(step.step.root, None)
        self._unhold(book, step)

    def over(self, step: Step) -> None:
        """The step is over; `output_tokens` says what it generated."""
        book = self.of(step.step.tenant)
        claim = book.running.pop(step.step.step_id, None)
        if claim is None:
            book.waiting -= 1
            self._unhold(book, step)
        else:
            book.running_tokens -= claim.kv_tokens
            book.reserved_tokens -= claim.output_tokens
            if step.output_tokens:
                book.output_minute.add(self.now_s, step.output_tokens)
            if not step.output_tokens and Move.TAKE not in step.life.story and Move.START not in step.life.story:
                book.input_minute.take_back(claim.at_s, claim.input_tokens)
        self._stir(book)

    def _unhold(self, book: TenantBook, step: Step) -> None:
        if book.held:
            book.held = [held for held in book.held if held.step_id != step.step.step_id]

    def _stir(self, book: TenantBook) -> None:
        if book.limited:
            self.dirty[book.tenant] = None

    def check(self, workflows: dict[RootId, Workflow], claims: Callable[[Workflow], bool]) -> None:
        """Assert what must hold between the books and the workflows. `claims`: whether one is a claimant."""
        for tenant, book in self._books.items():
            own = {root: w for root, w in workflows.items() if w.tenant == tenant}
            steps = {i: s for w in workflows.values() for i, s in w.steps.items() if s.step.tenant == tenant}
            waiting = {i for i, step in steps.items() if step.life.state is StepState.WAITING}
            assert book.known == len(own)
            assert set(book.standing) == {root for root, w in own.items() if claims(w)}
            assert set(book.active) == {root for root, w in own.items() if w.active}
            assert book.bench == sorted(book.bench)
            assert not {root for _, root in book.bench} & set(book.standing), "who stands is not on the bench"
            assert set(book.called) <= set(book.standing)
            assert book.held == sorted(book.held)
            assert {h.step_id for h in book.held} == {i for i in waiting if workflows[steps[i].step.root].active}
            assert book.waiting == len(waiting)
            assert set(book.running) == set(steps) - waiting
            assert book.running_tokens == sum(claim.kv_tokens for claim in book.running.values())
            assert book.reserved_tokens == sum(claim.output_tokens for claim in book.running.values())
            assert set(book.kept) <= set(book.active)
            assert book.kept_tokens == sum(book.kept.values())


def _has(ages: list[Age], age: Age) -> bool:
    at = bisect_left(ages, age)
    return at < len(ages) and ages[at] == age


def _remove(ages: list[Age], age: Age) -> None:
    at = bisect_left(ages, age)
    if at < len(ages) and ages[at] == age:
        del ages[at]
