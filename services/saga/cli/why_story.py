"""One step's story, put together from what admission and placement each remember, and from its worker's word. Pure."""

from typing import Final, Literal

import msgspec

from saga.contract.ids import PoolId, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.messages import KvTold, StepFinished, WhyTold
from saga.contract.misses import MissCause, Sent, added, explained
from saga.contract.why_messages import Cached, Fact, Moment, StepTold, Weighed, WorkflowTold

Teller = Literal["admission", "placement", "stream"]
ORDER: Final = {"admission": 0, "placement": 1, "stream": 2}


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, and who says so."""

    at_s: float  # since the first of them heard of the step
    by: Teller
    what: str
    attempt: int
    worker: WorkerId
    facts: dict[str, Fact]


class StepStory(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one step."""

    step_id: StepId
    root: RootId
    session: SessionId
    tenant: TenantId
    pool: PoolId
    prompt_tokens: int
    heard_s: float  # ago; negative: not known
    over: bool
    lines: tuple[Line, ...]
    weighed: tuple[Weighed, ...]
    cached: Cached | None
    missed_tokens: dict[MissCause, int]  # by cause, with what the worker says
    let_go: str = ""  # the worker's own word for it
    told_by: tuple[Teller, ...]


def steps_of(told: list[WhyTold]) -> dict[StepId, tuple[StepTold | None, StepTold | None]]:
    """(admission's, placement's) of each step, oldest first."""
    found: dict[StepId, tuple[StepTold | None, StepTold | None]] = {}
    for one in sorted(told, key=lambda answer: ORDER[answer.service]):
        for step in one.steps:
            ours, theirs = found.get(step.step_id, (None, None))
            found[step.step_id] = (step, theirs) if one.service == "admission" else (ours, step)
    return dict(sorted(found.items(), key=lambda item: -max(s.heard_s for s in item[1] if s is not None)))


def workflow_of(told: list[WhyTold]) -> WorkflowTold | None:
    """Admission's word on the workflow."""
    return next((one.workflow for one in told if one.workflow is not None), None)


def story_of(admission: StepTold | None, placement: StepTold | None, kv: KvTold | None) -> StepStory:
    """Both stories as one. `kv`: what the worker says that had the KV which was missed."""
    first = admission or placement
    assert first is not None
    lines = _lines("admission", admission, 0.0)
    has_admitted = any(line.what == "admitted" for line in lines)
    for line in _lines("placement", placement, _offset_s(admission, placement)):
        if not (has_admitted and line.what == "admitted"):
            lines.append(line)
    lines.sort(key=lambda line: line.at_s)
    last = placement if placement is not None else first
    cached, missed, let_go = last.cached, {}, ""
    if cached is not None:
        missed = dict(cached.missed_tokens)
        if cached.loss is not None:
            sent = Sent(
                prompt_tokens=cached.prompt_tokens, page_tokens=1, last_tokens=-1, shared_tokens=0, begins=False,
                tagged=last.tagged, gap_s=cached.gap_s, ran_at=cached.loss.worker_id,
            )  # fmt: skip
            missed = added(missed, explained(cached.loss, kv, sent, last.heard_s), cached.loss.tokens)
            let_go = kv.let_go if kv is not None else ""
    return StepStory(
        step_id=first.step_id,
        root=first.root,
        session=first.session,
        tenant=first.tenant,
        pool=first.pool,
        prompt_tokens=first.prompt_tokens,
        heard_s=first.heard_s,
        over=last.over,
        lines=tuple(lines),
        weighed=_choice(placement) or _choice(admission) or last.weighed,
        cached=cached,
        missed_tokens=missed,
        let_go=let_go,
        told_by=tuple(by for by, one in (("admission", admission), ("placement", placement)) if one is not None),  # type: ignore[misc]
    )


def story_of_end(finished: StepFinished) -> StepStory:
    """The bare end of a step, from the stream, when no leader remembers it."""
    line = Line(
        at_s=finished.waited_s + finished.engine_s,
        by="stream",
        what="finished",
        attempt=finished.attempt,
        worker=finished.worker_id,
        facts={
            "reason": finished.finish_reason,
            "output_tokens": finished.output_tokens,
            "control_s": round(finished.waited_s, 6),
            "first_token_s": round(finished.first_token_s, 6),
            "engine_s": round(finished.engine_s, 6),
            "cached_tokens": finished.cached_tokens,
        },
    )
    return StepStory(
        step_id=finished.step_id,
        root=finished.root,
        session=finished.session,
        tenant=finished.tenant,
        pool=finished.pool,
        prompt_tokens=finished.prompt_tokens,
        heard_s=-1.0,
        over=True,
        lines=(line,),
        weighed=(),
        cached=None,
        missed_tokens={},
        told_by=("stream",),
    )


def _lines(by: Teller, told: StepTold | None, offset_s: float) -> list[Line]:
    if told is None:
        return []
    return [_line(by, moment, offset_s) for moment in told.moments]


def _line(by: Teller, moment: Moment, offset_s: float) -> Line:
    return Line(
        at_s=round(moment.at_s + offset_s, 6),
        by=by,
        what=moment.what,
        attempt=moment.attempt,
        worker=moment.worker,
        facts=moment.facts,
    )


def _choice(told: StepTold | None) -> tuple[Weighed, ...]:
    """Workers that were weighed, where there was a choice."""
    weighed = told.weighed if told is not None else ()
    return weighed if any(not one.chosen and one.terms for one in weighed) else ()


def _offset_s(admission: StepTold | None, placement: StepTold | None) -> float:
    """Placement's zero on admission's clock: the moment at which admission let the step go on."""
    if admission is None or placement is None:
        return 0.0
    for moment in admission.moments:
        if moment.what == "admitted":
            return moment.at_s
    return max(0.0, admission.heard_s - placement.heard_s)
