"""Hard quotas of tenants: who goes on, who waits, whose kept KV is given up, and who is refused. Called by `state.py`.

Counts are in `tenant_books.py`. What is over a quota waits, oldest workflow first; a step is refused only when it could
wait for ever or when too many wait. Nothing that runs is ever cut: after a quota was lowered, what is over it ends by
itself and nothing new goes on meanwhile. docs/tenants.md says the same to operators.
"""

from collections.abc import Collection, Mapping
from typing import Final

from saga.admission.active_set import ActiveSet
from saga.admission.records import Step, Workflow
from saga.admission.roster import Roster
from saga.admission.stepbook import StepBook
from saga.admission.tenant_books import Claim, TenantBook
from saga.contract.ids import RootId, TenantId
from saga.contract.messages import StepReady
from saga.contract.tenants import NO_TERMS, TenantTerms
from saga.kernel.effects import Effect
from saga.kernel.steps import StepState

HELD_S: Final = 10.0  # an active workflow whose steps wait longer for a quota gives its place to others
TAKEOVER_S: Final = 1.5  # after which a new leader knows from gateways what runs
CLOSED_RETRY_S: Final = 60.0
WAITING_RETRY_S: Final = 5.0
Effects = list[Effect]


class Quotas:
    """Of all tenants."""

    def __init__(
        self, roster: Roster, book: StepBook, active_set: ActiveSet, weights: Mapping[TenantId, float]
    ) -> None:
        """`weights`: of tenants whose terms say nothing of it."""
        self._roster = roster
        self._tenants = roster.tenants
        self._book = book
        self._set = active_set
        self._weights = weights
        self._quiet_until_s = 0.0

    def weight_of(self, tenant: TenantId) -> float:
        """The tenant's weight, by its terms or by the settings."""
        terms = self._tenants.of(tenant).terms
        return terms.weight if terms.weight is not None else self._weights.get(tenant, 1.0)

    def agree(self, tenant: TenantId, terms: TenantTerms | None) -> None:
        """The tenant's terms have changed. None: it has none any more."""
        self._tenants.of(tenant).agree(terms or NO_TERMS)
        self._book.fair.set_weight(tenant, self.weight_of(tenant))
        self._tenants.dirty[tenant] = None

    def taken_over(self, now_s: float) -> None:
        """This leader is new: what runs is told by gateways in a moment, and counts."""
        self._quiet_until_s = now_s + TAKEOVER_S
        for tenant, book in self._tenants.all().items():
            if book.limited:
                self._tenants.dirty[tenant] = None

    # --- who is refused ----------------------------------------------------------------------------------------

    def never(self, ready: StepReady) -> str:
        """Why the step would wait for ever under the terms as they are; empty: it would not."""
        book = self._tenants.of(ready.tenant)
        if not book.limited:
            return ""
        terms = book.terms
        if closed := terms.closed():
            return f"tenant {ready.tenant}: quota {closed}=0, so nothing of it may run"
        for name, limit, asked in (
            ("kv_tokens", terms.kv_tokens, ready.prompt_tokens + 1),
            ("input_tokens_per_minute", terms.input_tokens_per_minute, ready.prompt_tokens),
        ):
            if limit is not None and asked > limit:
                told = f"tenant {ready.tenant}: quota {name}={limit}, and this step alone needs {asked}"
                return f"{told}; send a shorter prompt, or have the quota raised"
        return ""

    def too_many_wait(self, step: Step) -> str:
        """Why the step may not wait, which it would have to; empty: it may, or need not."""
        book = self._tenants.of(step.step.tenant)
        limit = book.terms.waiting_steps
        if limit is None or book.waiting <= limit or step.life.state is not StepState.WAITING:
            return ""
        book.refused += 1
        told = f"tenant {book.tenant}: quota waiting_steps={limit}, and {book.waiting - 1} of its steps wait"
        return told + (f", the first for quota {self._named(book)}" if book.held_for else "")

    def retry_after_s(self, tenant: TenantId, now_s: float) -> float:
        """When a step that was refused because others wait may be worth another try."""
        book = self._tenants.of(tenant)
        minutes = {"input_tokens_per_minute": book.input_minute, "output_tokens_per_minute": book.output_minute}
        minute = minutes.get(book.held_for)
        return max(WAITING_RETRY_S, minute.free_in_s(now_s, 1)) if minute is not None else WAITING_RETRY_S

    def hears_first(self, step: Step, now_s: float) -> bool:
        """Whether the step waits only because this leader is new and does not know yet what runs."""
        return now_s < self._quiet_until_s and self._tenants.of(step.step.tenant).limited

    def waits_for(self, step: Step) -> str:
        """The quota, with its value, that the step waits for; empty: for none."""
        book = self._tenants.of(step.step.tenant)
        held = book.holds(step.step.step_id)
        return self._named(book) if book.held_for and (held or step.step.root not in book.standing) else ""

    def _named(self, book: TenantBook) -> str:
        return f"{book.held_for}={getattr(book.terms, book.held_for)}"

    # --- who goes on -------------------------------------------------------------------------------------------

    def settle(self, now_s: float) -> Effects:
        """Let go on whatever may, of the tenants for which something has changed."""
        effects: Effects = []
        dirty = self._tenants.dirty
        while dirty:
            tenant = next(iter(dirty))
            del dirty[tenant]
            effects += self._settle(self._tenants.of(tenant), now_s)
        return effects

    def tick(self, now_s: float) -> Effects:
        """Time has passed: minutes are over, and who was held for long gives up its place."""
        effects: Effects = []
        for tenant in list(self._tenants.queued):
            book = self._tenants.of(tenant)
            if not (book.held or book.bench):
                del self._tenants.queued[tenant]
                continue
            self._tenants.dirty[tenant] = None
            long = {held.age[1] for held in book.held if now_s - held.since_s > HELD_S}
            for root in sorted(long):
                workflow = self._roster.workflows[root]
                if not workflow.running():
                    effects += self._bench(workflow, now_s)
        return effects

    def _settle(self, book: TenantBook, now_s: float) -> Effects:
        book.forget_past(now_s)
        effects = self._trim(book, now_s)
        if now_s < self._quiet_until_s and book.limited:
            return effects
        while True:
            first = book.bench[0] if book.bench else None
            head = book.held[0] if book.held else None
            book.held_for = ""
            if first is not None and (head is None or first < head.age):
                called = self._call(book, self._roster.workflows[first[1]], now_s)
                if called is not None:
                    effects += called
                    continue
            if head is None:
                return effects
            workflow = self._roster.workflows[head.age[1]]
            step = workflow.steps[head.step_id]
            claim = book.claim_of(step.step, now_s)
            hindrance = _hindrance(book, claim)
            if hindrance == "kv_tokens":
                effects += self._make_room(book, claim, workflow, now_s)
                hindrance = _hindrance(book, claim)
            if hindrance:
                book.held_for = hindrance
                step.wait_cause = "quota"
                return effects
            effects += self._book.admit(workflow, step)

    def _call(self, book: TenantBook, workflow: Workflow, now_s: float) -> Effects | None:
        """The first on the bench stands for the active set; None: its quotas do not let it yet."""
        terms = book.terms
        step = next(iter(workflow.steps.values()))
        step.wait_cause = "quota"
        claim = book.claim_of(step.step, now_s)
        if terms.active_workflows is not None and len(book.standing) >= terms.active_workflows:
            book.held_for = "active_workflows"
            return None
        hindrance = _hindrance(book, claim, book.called.values())
        if hindrance == "kv_tokens" and not book.called:
            effects = self._make_room(book, claim, workflow, now_s)
            hindrance = _hindrance(book, claim)
        else:
            effects = []
        if hindrance:
            book.held_for = hindrance
            return effects or None
        self._tenants.called(workflow, claim)
        self._roster.claim(workflow, now_s)
        return effects + self._set.choose(workflow.pool, now_s)

    def _make_room(self, book: TenantBook, claim: Claim, workflow: Workflow, now_s: float) -> Effects:
        """Give up KV kept for younger workflows' sessions and its own, youngest first, if that lets the step go on."""
        limit = book.terms.kv_tokens
        assert limit is not None
        missing = book.kv_tokens + claim.kv_tokens - limit
        younger = sorted((book.active[root].age_key for root in book.kept), reverse=True)
        younger = [age for age in younger if age >= workflow.age_key]
        if sum(book.kept[root] for _, root in younger) < missing:
            return []
        effects: Effects = []
        for _, root in younger:
            if book.kv_tokens + claim.kv_tokens <= limit:
                break
            effects += self._give_up_kept(book, root, now_s)
        return effects

    def _trim(self, book: TenantBook, now_s: float) -> Effects:
        """Take back what is over the quotas and does not run, youngest first: they were lowered, or an answer was
        longer than its limit."""
        effects: Effects = []
        limit = book.terms.active_workflows
        if limit is not None and len(book.standing) > limit:
            idle = sorted((w.age_key for w in book.standing.values() if not w.running()), reverse=True)
            for _, root in idle[: len(book.standing) - limit]:
                effects += self._bench(self._roster.workflows[root], now_s)
        kv_limit = book.terms.kv_tokens
        if kv_limit is not None and book.kv_tokens > kv_limit:
            for _, root in sorted((book.active[root].age_key for root in book.kept), reverse=True):
                if book.kv_tokens <= kv_limit:
                    break
                effects += self._give_up_kept(book, root, now_s)
        return effects

    def _give_up_kept(self, book: TenantBook, root: RootId, now_s: float) -> Effects:
        """Its sessions in a gap lose their claim, as if they were away for long."""
        workflow = book.active.get(root)
        if workflow is None:  # paused meanwhile, for another reason
            return []
        gone = [s for s in workflow.sessions.values() if not s.live_steps and s.dormant_at_s > now_s]
        for session in gone:
            session.dormant_at_s = now_s
        self._roster.claim(workflow, now_s)
        return self._set.let_sessions_go(gone) + self._set.choose(workflow.pool, now_s)

    def _bench(self, workflow: Workflow, now_s: float) -> Effects:
        """Out of the active set, or of the line for it, at a step boundary."""
        was_active = workflow.active
        self._roster.bench(workflow)
        effects = self._set.let_go(workflow, "paused") if was_active else []
        return effects + self._set.choose(workflow.pool, now_s)


def _hindrance(book: TenantBook, claim: Claim, ahead: Collection[Claim] = ()) -> str:
    """The quota that does not let a step with this claim go on now; empty: it may. `ahead`: those who go first."""
    terms = book.terms
    answers_tokens = book.reserved_tokens + book.output_minute.tokens
    checks = (
        ("running_steps", terms.running_steps, len(book.running) + len(ahead) + 1),
        ("kv_tokens", terms.kv_tokens, book.kv_tokens + claim.kv_tokens + sum(c.kv_tokens for c in ahead)),
        (
            "input_tokens_per_minute",
            terms.input_tokens_per_minute,
            book.input_minute.tokens + claim.input_tokens + sum(c.input_tokens for c in ahead),
        ),
        (
            "output_tokens_per_minute",
            terms.output_tokens_per_minute,
            answers_tokens + claim.output_tokens + sum(c.output_tokens for c in ahead),
        ),
    )
    return next((name for name, limit, use in checks if limit is not None and use > limit), "")
