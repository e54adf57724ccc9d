"""Quotas hold whatever happens in whatever order: arrivals, ends, deaths, cancellations, other terms, a new leader.

A model beside the core counts what runs by what was said on the bus alone, and what was admitted or generated in any
sixty seconds. Whatever the core lets go on must fit the terms of that moment; what it was told to let go on before a
quota was lowered must never be taken back.
"""

from dataclasses import dataclass

import pytest
from admission_story import Story, beat_of, hello, ready, step_id
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from saga.admission.door import Bounds
from saga.admission.events import TenantChanged
from saga.admission.policy import Everybody, OldestThatFit
from saga.admission.quotas import TAKEOVER_S
from saga.admission.worker_budgets import WorkerBudgets
from saga.contract.ids import GatewayId, LeaseId, SessionId, TenantId, WorkerId
from saga.contract.messages import (
    GatewayBeat,
    LeaseReturned,
    Refused,
    StepAdmitted,
    StepCancelled,
    StepReady,
    StepRefused,
)
from saga.contract.tenants import QUOTAS, TenantTerms
from saga.kernel.effects import Tick

TENANTS = ("red", "blue")
WORKFLOWS = 10  # of all tenants, known
POLICIES = (Everybody, OldestThatFit, lambda: WorkerBudgets(learns=False))
QUOTA = {
    "weight": st.sampled_from([0.5, 1.0, 3.0]),
    "active_workflows": st.integers(1, 3),
    "running_steps": st.integers(1, 3),
    "waiting_steps": st.integers(0, 3),
    "kv_tokens": st.integers(2_000, 12_000),
    "input_tokens_per_minute": st.integers(2_000, 12_000),
    "output_tokens_per_minute": st.integers(500, 3_000),
}
few = st.lists(st.sampled_from(sorted(QUOTA)), min_size=1, max_size=2, unique=True)
terms = few.flatmap(lambda names: st.fixed_dictionaries({name: QUOTA[name] for name in names}))
shut = st.sampled_from([{name: 0} for name in QUOTAS])
arrivals = st.tuples(st.integers(0, 5), st.integers(0, 1), st.integers(1, 3_000), st.integers(1, 1_200))


@dataclass
class Run:
    """A step that was let go on, and what it claimed then."""

    step: StepReady
    kv_tokens: int
    output_tokens: int
    prompt: tuple[float, str, int]
    taken: bool = False
    ran: bool = False


class Cell(RuleBasedStateMachine):
    """One admission, told anything that gateways, placement and operators may say."""

    @initialize(policy=st.integers(0, len(POLICIES) - 1), workers=st.integers(1, 3), quotas=terms)
    def begin(self, policy: int, workers: int, quotas: dict[str, int]) -> None:
        bounds = Bounds(max_waiting_steps=30, max_workflows=WORKFLOWS, max_workflows_per_tenant=9)
        self.story = Story(POLICIES[policy](), workers=0, bounds=bounds, max_wait_s=90.0)
        self.workers = workers
        self.number = 0
        self.terms = dict.fromkeys(TENANTS, TenantTerms())
        self.sent: dict[int, StepReady] = {}  # steps that are not over
        self.running: dict[int, Run] = {}  # those admitted, by the core's own word
        self.prompts: list[tuple[float, str, int]] = []
        self.answers: list[tuple[float, str, int]] = []
        self.active: set[str] = set()
        self.beat()
        self.story.now_s += TAKEOVER_S
        self.agree("red", quotas)

    # --- what happens ------------------------------------------------------------------------------------------

    @rule(tenant=st.sampled_from(TENANTS), burst=st.lists(arrivals, min_size=1, max_size=5))
    def arrive(self, tenant: str, burst: list[tuple[int, int, int, int]]) -> None:
        for workflow, session, prompt_tokens, max_output_tokens in burst:
            root = f"{tenant}/{workflow}"
            self.number += 1
            self.sent[self.number] = ready(
                self.number,
                root,
                tenant=TenantId(tenant),
                session=SessionId(f"{root}/{session}"),
                prompt_tokens=prompt_tokens,
                max_output_tokens=max_output_tokens,
            )
            self.heard(self.story.hear(self.sent[self.number]))
            limit = self.terms[tenant].waiting_steps
            if limit is not None and self.number in self.sent and self.number not in self.running:
                assert sum(s.tenant == tenant for n, s in self.sent.items() if n not in self.running) <= limit

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def arrive_again(self, data) -> None:
        self.heard(self.story.hear(self.sent[data.draw(st.sampled_from(list(self.sent)))]))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def take(self, data) -> None:
        number = data.draw(st.sampled_from(list(self.running)))
        run = self.running[number]
        run.taken = run.ran = True
        self.story.take(number, run.step.root, worker=self.worker(number), session=run.step.session)
        self.heard([])

    @precondition(lambda self: any(run.taken for run in self.running.values()))
    @rule(data=st.data(), share=st.floats(0.0, 1.0), final=st.booleans())
    def finish(self, data, share: float, final: bool) -> None:  # noqa: FBT001 - drawn
        number = data.draw(st.sampled_from([n for n, run in self.running.items() if run.taken]))
        output_tokens = round(share * self.sent[number].max_output_tokens)
        step = self.ended(number, output_tokens)
        self.heard(
            self.story.finish(
                number,
                step.root,
                tenant=step.tenant,
                session=step.session,
                worker_id=WorkerId(self.worker(number)),
                prompt_tokens=step.prompt_tokens,
                output_tokens=output_tokens,
                final=final,
            )
        )

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), failed=st.booleans())
    def cancel(self, data, failed: bool) -> None:  # noqa: FBT001 - drawn
        number = data.draw(st.sampled_from(list(self.sent)))
        step = self.ended(number, 0)
        cancelled = StepCancelled(
            step_id=step.step_id,
            attempt=0,
            gateway_id=GatewayId("g0"),
            tenant=step.tenant,
            root=step.root,
            session=step.session,
            failed=failed,
        )
        self.heard(self.story.hear(cancelled))

    @precondition(lambda self: any(run.taken for run in self.running.values()))
    @rule(data=st.data())
    def engine_dies(self, data) -> None:
        number = data.draw(st.sampled_from([n for n, run in self.running.items() if run.taken]))
        self.running[number].taken = False
        returned = LeaseReturned(
            step_id=step_id(number),
            attempt=0,
            lease_id=LeaseId("l"),
            worker_id=WorkerId(self.worker(number)),
            gateway_id=GatewayId("g0"),
            reason="engine_died",
        )
        self.heard(self.story.hear(returned))

    @rule(tenant=st.sampled_from(TENANTS), quotas=terms | terms | shut | st.none())
    def agree(self, tenant: str, quotas: dict[str, int] | None) -> None:
        given = None if quotas is None else TenantTerms(**quotas)
        self.terms[tenant] = given or TenantTerms()
        self.heard(self.story.tell(TenantChanged(TenantId(tenant), given)))

    @rule(passed_s=st.sampled_from([0.0, 0.25, 1.0, 4.0, 30.0, 61.0]))
    def time_passes(self, passed_s: float) -> None:
        self.story.now_s += passed_s
        self.beat()
        named = tuple(beat_of(number) for number in self.sent)
        self.heard(self.story.hear(GatewayBeat(gateway_id=GatewayId("g0"), waiting=named)))
        self.heard(self.story.tell(Tick()))

    def beat(self) -> None:
        for number in range(self.workers):
            self.heard(self.story.hear(hello(f"w{number}")))

    def worker(self, number: int) -> str:
        return f"w{number % self.workers}"

    # --- the model beside it -----------------------------------------------------------------------------------

    def ended(self, number: int, output_tokens: int) -> StepReady:
        step, run = self.sent.pop(number), self.running.pop(number, None)
        if run is not None:
            self.answers.append((self.story.now_s, step.tenant, output_tokens))
            if not run.ran:
                self.prompts.remove(run.prompt)
        return step

    def heard(self, messages) -> None:
        went_on: set[str] = set()
        for message in messages:
            if isinstance(message, StepAdmitted) and int(message.step.step_id, 16) not in self.running:
                number = int(message.step.step_id, 16)
                step = self.sent[number]
                limit = self.terms[step.tenant].kv_tokens
                whole_tokens = step.prompt_tokens + step.max_output_tokens
                most_out = self.terms[step.tenant].output_tokens_per_minute
                run = Run(
                    step,
                    whole_tokens if limit is None else min(whole_tokens, limit),
                    step.max_output_tokens if most_out is None else min(step.max_output_tokens, most_out),
                    (self.story.now_s, step.tenant, step.prompt_tokens),
                )
                self.running[number] = run
                self.prompts.append(run.prompt)
                went_on.add(step.tenant)
            elif isinstance(message, Refused | StepRefused):
                number = int(message.step_id, 16)
                assert number not in self.running, "what runs is never cut"
                assert message.retry_after_s > 0
                assert message.detail
                del self.sent[number]
        for tenant in went_on:
            self.fits(tenant)
        self.nobody_joined_over_the_quota()

    def fits(self, tenant: str) -> None:
        """Steps of the tenant have just gone on: all that runs of it fits its terms as they are now."""
        given = self.terms[tenant]
        own = [run for run in self.running.values() if run.step.tenant == tenant]
        since_s = self.story.now_s - 60.0
        prompts = sum(tokens for at_s, whose, tokens in self.prompts if whose == tenant and at_s > since_s)
        answers = sum(tokens for at_s, whose, tokens in self.answers if whose == tenant and at_s > since_s)
        assert not given.closed()
        for limit, used in (
            (given.running_steps, len(own)),
            (given.kv_tokens, sum(run.kv_tokens for run in own)),
            (given.kv_tokens, self.story.core.roster.tenants.of(TenantId(tenant)).kv_tokens),
            (given.input_tokens_per_minute, prompts),
            (given.output_tokens_per_minute, answers + sum(run.output_tokens for run in own)),
        ):
            assert limit is None or used <= limit, f"{tenant}: {used} of {limit}, {given}"

    def nobody_joined_over_the_quota(self) -> None:
        before, self.active = self.active, {r for r, w in self.story.core.roster.workflows.items() if w.active}
        for tenant in TENANTS:
            own = {root for root in self.active if root.startswith(tenant)}
            limit = self.terms[tenant].active_workflows
            assert limit is None or len(own) <= limit or own <= before, f"{tenant}: {own} of {limit}"

    @invariant()
    def what_runs_goes_on_and_memory_has_a_bound(self) -> None:
        """Told by the core's books, which `check()` compares with each other after each event."""
        if not hasattr(self, "story"):
            return
        book, roster = self.story.core.book, self.story.core.roster
        assert set(self.running) == {int(i, 16) for i, step in book.steps.items() if step.tag is not None}
        assert set(self.sent) == {int(i, 16) for i in book.steps}
        assert len(roster.workflows) <= WORKFLOWS
        for tenant in TENANTS:
            use, limit = roster.tenants.of(TenantId(tenant)), self.terms[tenant].kv_tokens
            assert limit is None or use.kv_tokens <= max(limit, use.running_tokens), "kept KV is given up first"


Cell.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestQuotas = pytest.mark.timeout(600)(Cell.TestCase)
