"""Every workload of the laboratory by its name.

S1 `swe-bench`, S2 `webarena`, S3 `tenants`, S4 `coding-sessions`, S5 `coding-fitted`, S6 `mixed` (with the agents of
S5) and `mixed-recorded` (with those of S4), S7 `adversarial` and its parts. `mixed:0.5` says which share of the
conversations is chat, `flood:10` how many times its share one tenant offers. Called by `runner` and `cli`.
"""

from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from saga.engine.profile import Profile
from saga.load.settings import CODING_SESSIONS
from saga.load.trace import TraceError, read_sessions
from saga.sim.adversarial import PARTS, Adversarial, parse
from saga.sim.chat import Chat
from saga.sim.conversation import Conversation, Workload
from saga.sim.fitted import Fitted
from saga.sim.flood import FLOOD, Flood, parse_times
from saga.sim.mixed import Mixed, Part
from saga.sim.recorded import Recorded
from saga.sim.synthetic import CLASSES, Synthetic

CODING_FITTED, MIXED, MIXED_RECORDED, ADVERSARIAL = "coding-fitted", "mixed", "mixed-recorded", "adversarial"
WORKLOADS = (
    *CLASSES,
    CODING_SESSIONS,
    CODING_FITTED,
    MIXED,
    MIXED_RECORDED,
    ADVERSARIAL,
    *(f"{ADVERSARIAL}:{part}" for part in PARTS),
    f"{FLOOD}:1",
    f"{FLOOD}:10",
)
SKEWED = "skewed"  # by itself only: it came later, and the mix is to stay comparable
CHAT_SHARE = 0.8  # of the conversations of `mixed`
SAMPLE = 500  # conversations behind the mean of one run alone


class WorkloadError(ValueError):
    """There is no such workload; the message says which there are."""


class Made(Struct, frozen=True):
    """A workload, how many recorded sessions do not fit its workers, and bad lines left out of their file."""

    workload: Workload
    dropped_sessions: int = 0
    skipped_lines: int = 0


def needs_sessions(name: str) -> bool:
    """Whether a workload replays recorded sessions."""
    return name.partition(":")[0] in (CODING_SESSIONS, MIXED_RECORDED)


def check_workload(name: str) -> None:
    """Raises WorkloadError for a name that `make_workload` would not know."""
    if name in WORKLOADS:
        return
    kind, _, value = name.partition(":")
    parsers = {ADVERSARIAL: parse, FLOOD: parse_times, MIXED: _share, MIXED_RECORDED: _share}
    if kind not in parsers:
        raise WorkloadError(f"unknown workload {name!r}; known: {', '.join(WORKLOADS)}")
    try:
        parsers[kind](value)
    except ValueError as error:
        raise WorkloadError(str(error)) from None


def make_workload(
    name: str, seed: int, profile: Profile, sessions: Path | None = None, *, skip_bad: bool = False
) -> Made:
    """The workload of that name for workers of that profile.

    `sessions`: a trace in any known format, for those that replay one. Raises WorkloadError, TraceError, PlanError.
    """
    check_workload(name)
    kind, _, value = name.partition(":")
    context_tokens, page_tokens = profile.context_tokens, profile.page_tokens
    if kind in CLASSES:
        return Made(Synthetic(kind, seed, context_tokens, page_tokens))
    if kind == CODING_FITTED:
        return Made(Fitted(seed, context_tokens, page_tokens))
    if kind == ADVERSARIAL:
        parts = tuple(Part(Adversarial(part, seed, context_tokens, page_tokens), 1.0) for part in _parts(value))
        return Made(parts[0].workload if value else Mixed(name, seed, parts))
    if kind == FLOOD:
        return Made(Flood(parse_times(value), seed, context_tokens, page_tokens))
    agents = Made(Fitted(seed, context_tokens, page_tokens))
    if needs_sessions(name):
        agents = _recorded(seed, profile, sessions, name, skip_bad=skip_bad)
    if kind == CODING_SESSIONS:
        return agents
    share = _share(value) if value else CHAT_SHARE
    chat = Chat(seed, context_tokens, page_tokens)
    mixed = Mixed(name, seed, (Part(agents.workload, 1 - share), Part(chat, share)))
    return Made(mixed, agents.dropped_sessions, agents.skipped_lines)


def typical(
    name: str, made: Made, profile: Profile, sessions: Path | None = None, *, skip_bad: bool = False
) -> Iterable[Conversation]:
    """Conversations that say what the workload is like, the same for every seed: all recorded ones, or a sample."""
    if isinstance(made.workload, Recorded):
        return made.workload.every
    workload = make_workload(name, 0, profile, sessions, skip_bad=skip_bad).workload
    return (workload.draw(number) for number in range(SAMPLE))


def _recorded(seed: int, profile: Profile, sessions: Path | None, name: str, *, skip_bad: bool) -> Made:
    if sessions is None:
        raise TraceError(f"{name} needs --sessions FILE")
    read = read_sessions(sessions, skip_bad=skip_bad)
    recorded = Recorded(
        read,
        seed,
        context_tokens=profile.context_tokens,
        kv_tokens=profile.kv_tokens,
        page_tokens=profile.page_tokens,
    )
    left = recorded.left_out
    return Made(recorded, left.dropped_over_context + left.dropped_over_half_kv, read.skipped)


def _parts(value: str) -> tuple[str, ...]:
    return (value,) if value else tuple(part for part in PARTS if part != SKEWED)


def _share(value: str) -> float:
    """Raises ValueError unless it is a share."""
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share of chat between 0 and 1, as in {MIXED}:0.5, got {value!r}")
    return share
