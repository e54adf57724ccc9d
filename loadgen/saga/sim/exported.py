"""Live traffic as a trace: recordings of admission (`SAGA_RECORD`) to sessions that the laboratory replays.

A workflow becomes a session, its sessions become agents. Prompts are not in a recording, but the hashes of their pages
are: equal hashes become equal block ids, so that what was shared is shared again. Called by `export_cli`.
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from saga.contract.ids import RootId, SessionId, StepId
from saga.contract.messages import StepFinished, StepReady
from saga.kernel.effects import Received
from saga.kernel.record import RecordError
from saga.load.traces.session import END_TURN, MAIN_AGENT, TOOL_USE, Run, Session, Step, SubAgent
from saga.sim.replayed import fresh_core, read_recording

SERVICE = "admission"  # its leader hears of every step of the cell
HASH_BYTES = 8


class Exported(Struct, frozen=True):
    """What the recordings hold. `unfinished`: steps that began and did not end in them, left out."""

    sessions: tuple[Session, ...]
    steps: int
    unfinished: int


class _Asked(Struct, frozen=True):
    """A step as its gateway asked for it. `chain`: the page hashes of its whole prompt, 8 bytes each."""

    ready: StepReady
    chain: bytes


class _Workflow:
    """What is known of one root workflow while recordings are read."""

    def __init__(self) -> None:
        self.chains: dict[SessionId, bytes] = {}
        self.ended: list[tuple[_Asked, StepFinished]] = []


def export(files: Iterable[Path]) -> Exported:
    """All workflows with a finished step, by their first one. Raises RecordError, OSError.

    A step told to two leaders, or again under a new attempt, counts once.
    """
    workflows: dict[RootId, _Workflow] = {}
    asked: dict[StepId, _Asked] = {}
    finished: set[StepId] = set()
    for message in _messages(files):
        workflow = workflows.setdefault(message.root, _Workflow())
        if isinstance(message, StepReady):
            if message.step_id not in asked:
                asked[message.step_id] = _Asked(message, _chain(workflow, message))
        elif message.step_id in asked and message.step_id not in finished:
            finished.add(message.step_id)
            workflow.ended.append((asked[message.step_id], message))
    if not finished:
        raise RecordError("no step has finished in these recordings")
    ids = _BlockIds()
    begun = sorted((w for w in workflows.values() if w.ended), key=lambda w: min(a.ready.at for a, _ in w.ended))
    origin_s = min((a.ready.at for w in begun for a, _ in w.ended), default=0.0)
    sessions = tuple(_session(f"live_{n:04}", w, origin_s, ids) for n, w in enumerate(begun, start=1))
    return Exported(sessions, len(finished), len(asked) - len(finished))


def _messages(files: Iterable[Path]) -> Iterator[StepReady | StepFinished]:
    read = False
    for path in files:
        header, entries = read_recording(path)
        if header.service != SERVICE:
            continue
        read = True
        _core, events = fresh_core(header.service, header.making)
        for entry in entries:
            event = events.of(entry)
            if isinstance(event, Received) and isinstance(event.message, StepReady | StepFinished):
                yield event.message
    if not read:
        raise RecordError(f"none of these is a recording of {SERVICE}, which hears of every step")


def _chain(workflow: _Workflow, ready: StepReady) -> bytes:
    """Hashes of all full pages of the prompt. What a recording that began later does not know of the base is made up:
    pages of that session alone."""
    known = workflow.chains.get(ready.session, b"")[: ready.base_pages * HASH_BYTES]
    missing = ready.base_pages - len(known) // HASH_BYTES
    made_up = b"".join(sha256(f"{ready.session}/{number}".encode()).digest()[:HASH_BYTES] for number in range(missing))
    chain = known + made_up + _every_page(ready)
    workflow.chains[ready.session] = chain
    return chain


def _every_page(ready: StepReady) -> bytes:
    """Very long prompts name each n-th page only; a hash stands for all pages since the one before."""
    if ready.hash_stride == 1:
        return ready.new_hashes
    hashes = (ready.new_hashes[at : at + HASH_BYTES] for at in range(0, len(ready.new_hashes), HASH_BYTES))
    pages = b"".join(
        (int.from_bytes(each, "big") ^ number).to_bytes(HASH_BYTES, "big")
        for each in hashes
        for number in range(ready.hash_stride)
    )
    whole = ready.prompt_tokens // ready.page_tokens - ready.base_pages
    return pages[: whole * HASH_BYTES]


class _BlockIds:
    """Numbers for page hashes, from 1, the same for the same hash."""

    def __init__(self) -> None:
        self._ids: dict[bytes, int] = {}

    def runs(self, chain: bytes, blocks: int) -> tuple[Run, ...]:
        """The first `blocks` pages of a chain as runs of consecutive numbers; those that it lacks get new ones."""
        runs: list[tuple[int, int]] = []
        for number in range(blocks):
            page = chain[number * HASH_BYTES : (number + 1) * HASH_BYTES] or f"{len(self._ids)}".encode()
            block = self._ids.setdefault(page, len(self._ids) + 1)
            if runs and sum(runs[-1]) == block:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((block, 1))
        return tuple(runs)


def _session(name: str, workflow: _Workflow, origin_s: float, ids: _BlockIds) -> Session:
    ended = sorted(workflow.ended, key=lambda pair: (pair[0].ready.at, pair[0].ready.step_id))
    first_s = ended[0][0].ready.at
    names: dict[SessionId, str] = {}
    began_s: dict[str, float] = {}
    stops: dict[str, str] = {}
    steps = []
    for asked, finished in ended:
        ready = asked.ready
        agent = names.setdefault(ready.session, f"agent_{len(names):03}" if names else MAIN_AGENT)
        at_s = round(ready.at - first_s, 3)
        began_s.setdefault(agent, at_s)
        stop = TOOL_USE if finished.tools or finished.finish_reason == "tool_calls" else END_TURN
        steps.append(
            Step(
                agent=agent,
                start_s=at_s,
                input_tokens=ready.prompt_tokens,
                output_tokens=finished.output_tokens,
                blocks=ids.runs(asked.chain, ready.prompt_tokens // ready.page_tokens),
                stop=stop,
                api_s=round(finished.engine_s, 3),
                gap_s=round(finished.gap_s, 3) if finished.gap_s >= 0.0 else None,
                model=ready.pool,
                input_types=("tool_result",) if stops.get(agent) == TOOL_USE else ("text",),
            )
        )
        stops[agent] = stop
    return Session(
        id=name,
        block_tokens=ended[0][0].ready.page_tokens,
        steps=tuple(steps),
        subagents=tuple(SubAgent(agent, at_s) for agent, at_s in began_s.items() if agent != MAIN_AGENT),
        origin_s=round(first_s - origin_s, 3),
        common_ids=True,
    )
