"""What the leaders of a cell say when asked: `saga why`, `saga workers`, `saga drain`."""

from typing import Final

from saga.cli.operating import Cell, NotDoneError
from saga.contract.messages import KvAsk, KvTold, WhyAsk, WhyTold, WorkersAsk, WorkersTold
from saga.contract.why_messages import StepTold, WorkerTold
from saga.runtime.errors import BusUnavailable, MessageError, NoResponders

ANSWER_WITHIN_S: Final = 2.0
KV_WITHIN_S: Final = 0.5


async def workers_of(cell: Cell) -> list[WorkerTold]:
    """All workers that the leading placement knows. Raises NotDoneError, BusUnavailable."""
    found: list[WorkerTold] = []
    more = True
    while more:
        ask = WorkersAsk(after=found[-1].worker if found else WorkersAsk().after)
        try:
            answer = await cell.bus.request(cell.subjects.placement_ask(), ask, ANSWER_WITHIN_S)
        except NoResponders:
            raise NotDoneError("no placement leads this cell: is the mesh up? Try again in a few seconds") from None
        if not isinstance(answer, WorkersTold):
            raise NotDoneError("placement does not know the question: it is older than this command")
        found += answer.workers
        more = answer.more and bool(answer.workers)
    return found


async def stories_of(cell: Cell, ask: WhyAsk) -> list[WhyTold]:
    """What the leading admission and the leading placement remember; who leads nothing now is left out.

    Raises NotDoneError when neither answers.
    """
    found: list[WhyTold] = []
    for subject in (cell.subjects.admission_ask(), cell.subjects.placement_ask()):
        try:
            answer = await cell.bus.request(subject, ask, ANSWER_WITHIN_S)
        except BusUnavailable:
            continue
        if isinstance(answer, WhyTold):
            found.append(answer)
    if not found:
        raise NotDoneError("neither admission nor placement answers: is the mesh up? Try again in a few seconds")
    return found


async def word_of_worker(cell: Cell, step: StepTold) -> KvTold | None:
    """What the worker says that had the KV which the step missed; None: nobody was to be asked, or no answer."""
    if step.cached is None or step.cached.loss is None or not step.cached.loss.worker_id:
        return None
    ask = KvAsk(session=step.session, step_id=step.step_id)
    try:
        answer = await cell.bus.request(cell.subjects.worker_ask(step.cached.loss.worker_id), ask, KV_WITHIN_S)
    except (BusUnavailable, MessageError):
        return None
    return answer if isinstance(answer, KvTold) else None
