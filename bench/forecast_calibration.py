"""Are forecasts right on sessions that nothing was learnt from? Coverage, returns, next tools; on several folds.

    python bench/forecast_calibration.py [--sessions FILE] [--folds 5] [--tasks 400] [--only recorded] [--json]

Models learn from the training sessions as in service: their steps come interleaved, in the order of time, through the
graph's core. Then they learn no more and forecast every step of the held-out sessions. `recorded` holds out sessions,
`recorded-classes` whole agent classes, so that only what is learnt of others helps; `swe-bench` and `webarena` are the
published synthetic workloads, whose tools come from a fixed draw and whose next tool nobody can know better than its
share; `chain` is a made-up agent whose tools follow a known chain. The recording names no tools: there a step calls
some tool, an unknown one (not streamed), or none.

Coverage is the share of gaps at or below a quantile (`ties`: how many are in its bucket of 2 %; recorded gaps are
whole seconds). Goal: within 3 points at P50, P90 and P95. Brier and log score are of `returns`; `base` is the share of
returns in training. Next tools: share of held-out transitions, ends included, whose most likely next tool came;
`majority` is the tool most frequent in training, `best` what the true chain would reach. `remaining`: steps foreseen
over steps that came, on average over all steps.
"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

from msgspec import Struct

from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.messages import GAP_SHARES, StepFinished, StepReady
from saga.graph.aeg import Session
from saga.graph.following import FORGET_S
from saga.graph.forecast import END, Estimate, ForecastPolicy, next_tools, policy_named
from saga.graph.making import Making, make_core
from saga.graph.models import Model
from saga.graph.shelf import GLOBAL
from saga.graph.situation import NO_TOOL, Situation
from saga.graph.sketch import bucket_of
from saga.graph.state import GraphState
from saga.kernel.effects import Received, Tick
from saga.load.trace import MAIN_AGENT, read_sessions
from saga.load.traces.session import END_TURN
from saga.sim.synthetic import Synthetic

TRACE = Path("../shared/traces/coding-sessions.jsonl.gz")
JUDGED = (0.5, 0.9, 0.95)
GOAL = 0.03
TENANT = "tenant"
TICK_S = 60.0
ENGINE_S = 3.0  # where none is recorded
SPACING_S = (5.0, 600.0)  # between workflows: made-up ones; recorded ones
CHAIN = {  # of tools that follow each other; what is missing to 1 ends
    "read": {"read": 0.3, "edit": 0.6, "bash": 0.08},
    "edit": {"bash": 0.7, "read": 0.2, "edit": 0.08},
    "bash": {"read": 0.25, "edit": 0.35, "bash": 0.3},
}


class Call(Struct, frozen=True):
    """One step. `gap_s` lies before it; negative: it is its session's first."""

    tool: str
    gap_s: float
    engine_s: float
    prompt_tokens: int
    output_tokens: int


class Agent(Struct, frozen=True):
    """One session; a sub-agent's starts so long after its workflow."""

    agent_class: str
    calls: tuple[Call, ...]
    is_sub: bool = False
    start_s: float = 0.0


Workflow = tuple[Agent, ...]


def recorded(path: Path) -> list[Workflow]:
    """The recorded sessions; classes are told apart by their prefix, as in the laboratory."""
    workflows = []
    for session in read_sessions(path):
        subs = {sub.agent: f"{sub.tool_tokens}-{sub.system_tokens}" for sub in session.subagents}
        agents = []
        for name, steps in session.agents().items():
            calls = [
                Call(
                    NO_TOOL if step.stop == END_TURN else (step.stop or "unknown"),
                    step.think_s if number else -1.0,
                    step.api_s or ENGINE_S,
                    step.input_tokens,
                    step.output_tokens,
                )
                for number, step in enumerate(steps)
            ]
            own = f"{session.tool_tokens}-{session.system_tokens}"
            is_sub = name != MAIN_AGENT
            agents.append(Agent(subs.get(name, own) if is_sub else own, tuple(calls), is_sub, steps[0].start_s))
        workflows.append(tuple(agents))
    return workflows


def synthetic(name: str, tasks: int) -> list[Workflow]:
    """Tasks of a published workload."""
    drawn = Synthetic(name, 11, 131_072, 64)
    workflows: list[Workflow] = []
    for number in range(tasks):
        steps = drawn.draw(number).agents[0].steps
        calls = [
            Call(s.tool, s.think_s if n else -1.0, 2.0, s.prompt_tokens, s.output_tokens) for n, s in enumerate(steps)
        ]
        workflows.append((Agent(name, tuple(calls)),))
    return workflows


def chain(tasks: int) -> list[Workflow]:
    """Agents that follow CHAIN."""
    workflows: list[Workflow] = []
    for number in range(tasks):
        random = Random(f"chain/{number}")
        tool = "read"
        calls: list[Call] = []
        while not calls or calls[-1].tool != NO_TOOL:
            gap_s = random.lognormvariate(0.0, 1.0) if calls else -1.0
            calls.append(Call(tool, gap_s, 1.0, 1_000 * (len(calls) + 1), 100))
            following = CHAIN.get(tool, {})
            tool = random.choices([*following, NO_TOOL], [*following.values(), 1.0 - sum(following.values())])[0]
        workflows.append((Agent("chain", tuple(calls)),))
    return workflows


def learnt(workflows: Sequence[Workflow], spacing_s: float) -> GraphState:
    """A core that has seen these workflows, a new one every `spacing_s`, and has given up waiting for any of them."""
    state = make_core(Making(cell="bench", forecast="saga"))
    told: list[tuple[float, int, StepReady | StepFinished]] = []
    for number, workflow in enumerate(workflows):
        root = RootId(f"{TENANT}/{number}")
        for which, agent in enumerate(workflow):
            now_s = number * spacing_s + agent.start_s
            for index, call in enumerate(agent.calls):
                now_s += max(0.0, call.gap_s)
                ready, finished = messages(root, which, index, agent, call)
                told.append((now_s, len(told), ready))
                now_s += call.engine_s
                told.append((now_s, len(told), finished))
    tick_s = 0.0
    for now_s, _, message in sorted(told, key=lambda entry: entry[:2]):
        if now_s >= tick_s:
            state.handle(Tick(), now_s)
            tick_s = now_s + TICK_S
        state.handle(Received(message), now_s)
    last_s = max(entry[0] for entry in told)
    state.handle(Tick(), last_s + FORGET_S)
    return state


def messages(root: RootId, which: int, index: int, agent: Agent, call: Call) -> tuple[StepReady, StepFinished]:
    """What the mesh says of one step."""
    session = SessionId(f"{root}/{which}")
    parent = SessionId(f"{root}/0") if agent.is_sub else SessionId("")
    step_id = StepId(f"{session}/{index}")
    ready = StepReady(
        step_id=step_id,
        attempt=0,
        gateway_id=GatewayId("gateway"),
        tenant=TenantId(TENANT),
        root=root,
        session=session,
        parent=parent,
        pool=PoolId("pool"),
        agent_class=agent.agent_class,
        prompt_tokens=call.prompt_tokens,
        max_output_tokens=1,
        page_tokens=64,
        gap_s=call.gap_s,
    )
    finished = StepFinished(
        step_id=step_id,
        attempt=0,
        lease_id=LeaseId("lease"),
        worker_id=WorkerId("worker"),
        gateway_id=GatewayId("gateway"),
        tenant=TenantId(TENANT),
        root=root,
        session=session,
        parent=parent,
        pool=PoolId("pool"),
        agent_class=agent.agent_class,
        prompt_tokens=call.prompt_tokens,
        output_tokens=call.output_tokens,
        cached_tokens=0,
        finish_reason="stop",
        tools=(call.tool,) if call.tool else (),
        gap_s=call.gap_s,
        engine_s=call.engine_s,
    )
    return ready, finished


class Scores:
    """What came of all forecasts of one kind."""

    def __init__(self) -> None:
        self.gaps = 0
        self.at_or_below = [0] * len(JUDGED)
        self.ties = [0] * len(JUDGED)
        self.pinball = 0.0  # of the logarithm: what a better distribution lowers
        self.steps = self.returned = self.right = self.majority_right = 0
        self.brier = self.log = self.base_brier = self.base_log = 0.0
        self.growth_off = self.growth = 0.0
        self.foreseen_steps = self.left_steps = 0.0

    def gap(self, gap_s: float, said: Estimate) -> None:
        """A gap is over."""
        self.gaps += 1
        bucket = bucket_of(gap_s)
        for index, share in enumerate(JUDGED):
            quantile_s = said.gap_s[GAP_SHARES.index(share)]
            at = bucket_of(quantile_s * (1.0 - 1e-9))
            self.at_or_below[index] += bucket <= at
            self.ties[index] += bucket == at
            off = math.log((gap_s + 0.1) / (quantile_s + 0.1))
            self.pinball += max(share * off, (share - 1.0) * off)

    def outcome(self, *, returned: bool, said: float, base: float) -> None:
        """Whether another step followed."""
        self.steps += 1
        self.returned += returned
        self.brier += (said - returned) ** 2
        self.base_brier += (base - returned) ** 2
        self.log -= math.log(max(1e-9, said if returned else 1.0 - said))
        self.base_log -= math.log(max(1e-9, base if returned else 1.0 - base))

    def row(self) -> dict[str, float]:
        """As figures."""
        gaps, steps = max(1, self.gaps), max(1, self.steps)
        covered = {f"p{round(100 * share)}": self.at_or_below[i] / gaps for i, share in enumerate(JUDGED)}
        off = max(abs(covered[f"p{round(100 * share)}"] - share) for share in JUDGED)
        return {
            "gaps": self.gaps,
            **covered,
            **{f"ties{round(100 * share)}": self.ties[i] / gaps for i, share in enumerate(JUDGED)},
            "off": off,
            "log_pinball": self.pinball / gaps / len(JUDGED),
            "steps": self.steps,
            "brier": self.brier / steps,
            "base_brier": self.base_brier / steps,
            "log": self.log / steps,
            "base_log": self.base_log / steps,
            "next_tool": self.right / steps,
            "majority": self.majority_right / steps,
            "remaining": self.foreseen_steps / max(1.0, self.left_steps),
        }


def judge(
    workflows: Sequence[Workflow], state: GraphState, base: float, often: str, all_: Scores, scores: Scores
) -> None:
    """Forecast every step of these workflows from models that stay as they are."""
    policy = policy_named("saga")
    for workflow in workflows:
        for agent in workflow:
            judge_agent(agent, policy, levels(state, agent.agent_class), base, often, (all_, scores))


def judge_agent(
    agent: Agent, policy: ForecastPolicy, models: tuple[Model, ...], base: float, often: str, both: tuple[Scores, ...]
) -> None:
    """One session."""
    session = Session(SessionId("s"), agent.agent_class, SessionId("p") if agent.is_sub else SessionId(""))
    for index, (call, after) in enumerate(pairwise((*agent.calls, None))):
        assert call is not None
        session.back(StepId(str(index)), call.gap_s)
        session.stepped(StepId(str(index)), call.tool, call.prompt_tokens, 0.0)
        said = policy.estimate(Situation(session.tool, session.steps, session.context), models)
        likely = next(iter(next_tools(call.tool, models)), often)
        came = END if after is None else after.tool
        for scores in both:
            scores.outcome(returned=after is not None, said=said.returns, base=base)
            scores.right += likely == came
            scores.majority_right += often == came
            scores.foreseen_steps += said.remaining_steps
            scores.left_steps += len(agent.calls) - 1 - index
            if after is not None:
                scores.gap(after.gap_s, said)


def levels(state: GraphState, agent_class: str) -> tuple[Model, ...]:
    """Models to forecast from; of a class that was never seen an empty one."""
    names = (f"class/{TENANT}/{agent_class}", f"tenant/{TENANT}", GLOBAL)
    return tuple(state.models.get(name) or Model(name) for name in names)


def folded(name: str, workflows: Sequence[Workflow], folds: int, fold_of: Callable[[int], int]) -> dict[str, object]:
    """All folds of one workload."""
    total = Scores()
    each = []
    for fold in range(folds):
        training = [w for n, w in enumerate(workflows) if fold_of(n) != fold]
        held_out = [w for n, w in enumerate(workflows) if fold_of(n) == fold]
        state = learnt(training, SPACING_S[name.startswith("recorded")])
        calls = [agent.calls for workflow in training for agent in workflow]
        nexts = Counter([call.tool for own in calls for call in own[1:]] + [END] * len(calls))
        base = 1.0 - len(calls) / sum(map(len, calls))
        scores = Scores()
        judge(held_out, state, base, nexts.most_common(1)[0][0], total, scores)
        each.append(scores.row())
    row = total.row()
    if name == "chain":
        row["best"] = best_next_tool(workflows)
    return {"workload": name, **row, "folds": each}


def best_next_tool(workflows: Sequence[Workflow]) -> float:
    """Share of transitions of the chain that its own most likely next tools hit."""
    likely = {tool: max(following, key=following.__getitem__) for tool, following in CHAIN.items()} | {NO_TOOL: END}
    hits = [
        likely[call.tool] == (END if after is None else after.tool)
        for workflow in workflows
        for agent in workflow
        for call, after in pairwise((*agent.calls, None))
        if call is not None
    ]
    return sum(hits) / len(hits)


def by_class(workflows: Sequence[Workflow], folds: int) -> Callable[[int], int]:
    """Folds that share no class of a main agent."""
    sizes = Counter(workflow[0].agent_class for workflow in workflows)
    filled = [0] * folds
    fold: dict[str, int] = {}
    for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        fold[name] = filled.index(min(filled))
        filled[fold[name]] += size
    return lambda number: fold[workflows[number][0].agent_class]


def main(argv: Iterable[str] | None = None) -> int:
    """Measure and print. Exit status 1 where coverage misses its goal."""
    parser = argparse.ArgumentParser(description="calibration of forecasts on held-out sessions")
    parser.add_argument("--sessions", type=Path, default=TRACE)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=400, help="of each synthetic workload")
    parser.add_argument("--only", default="", help="workloads, separated by commas")
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args(None if argv is None else list(argv))
    rows = []
    for name in ("recorded", "recorded-classes", "swe-bench", "webarena", "chain"):
        if flags.only and name not in flags.only.split(","):
            continue
        if name.startswith("recorded"):
            if not flags.sessions.exists():
                print(f"no {flags.sessions}: {name} is left out", file=sys.stderr)
                continue
            workflows = recorded(flags.sessions)
        else:
            workflows = chain(flags.tasks) if name == "chain" else synthetic(name, flags.tasks)
        every = (
            by_class(workflows, flags.folds) if name == "recorded-classes" else (lambda number: number % flags.folds)
        )
        rows.append(folded(name, workflows, flags.folds, every))
        if not flags.json:
            show(rows[-1])
    if flags.json:
        print(json.dumps(rows))
    return int(any(float(str(row["off"])) > GOAL for row in rows))


def show(row: dict[str, object]) -> None:
    """One workload, for people."""
    folds = row.pop("folds")
    words = [f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()]
    print("  ".join(words))
    assert isinstance(folds, list)
    print("    folds:", "  ".join(f"{f['p50']:.3f}/{f['p90']:.3f}/{f['p95']:.3f}" for f in folds), flush=True)
    row["folds"] = folds


if __name__ == "__main__":
    sys.exit(main())
