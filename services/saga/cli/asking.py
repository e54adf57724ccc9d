"""What the leaders of a cell say when asked: `saga why`, `saga workers`, `saga drain`, `saga tenants usage`."""

from collections.abc import AsyncIterator, Callable
from typing import Final, TypeVar

from saga.cli.operating import Cell, NotDoneError
from saga.contract.messages import (
    KvAsk,
    KvTold,
    Message,
    TenantsAnswer,
    TenantsAsk,
    WhyAsk,
    WhyTold,
    WorkersAsk,
    WorkersTold,
)
from saga.contract.tenant_messages import TenantUse
from saga.contract.why_messages import StepTold, WorkerTold
from saga.runtime.errors import BusUnavailable, MessageError, NoResponders

ANSWER_WITHIN_S: Final = 2.0
KV_WITHIN_S: Final = 0.5
PageT = TypeVar("PageT", bound=Message)


async def paged(
    cell: Cell, leader: str, subject: str, first: Message, kind: type[PageT], after: Callable[[PageT], Message | None]
) -> AsyncIterator[PageT]:
    """What the service that leads answers, page by page. `after`: what to ask for after a page; None: it was the last.

    Raises NotDoneError, BusUnavailable.
    """
    ask: Message | None = first
    while ask is not None:
        try:
            answer = await cell.bus.request(subject, ask, ANSWER_WITHIN_S)
        except NoResponders:
            raise NotDoneError(f"no {leader} leads this cell: is the mesh up? Try again in a few seconds") from None
        if not isinstance(answer, kind):
            raise NotDoneError(f"{leader} does not know the question: it is older than this command")
        yield answer
        ask = after(answer)


async def workers_of(cell: Cell) -> list[WorkerTold]:
    """All workers that the leading placement knows. Raises NotDoneError, BusUnavailable."""

    def after(page: WorkersTold) -> WorkersAsk | None:
        return WorkersAsk(after=page.workers[-1].worker) if page.more and page.workers else None

    pages = paged(cell, "placement", cell.subjects.placement_ask(), WorkersAsk(), WorkersTold, after)
    return [worker async for page in pages for worker in page.workers]


async def uses_of(cell: Cell, tenant: str) -> list[TenantUse]:
    """What tenants use now by the leading admission; of one, or with an empty name of all. Raises as `workers_of`."""

    def after(page: TenantsAnswer) -> TenantsAsk | None:
        return TenantsAsk(tenant=tenant, after=page.tenants[-1].tenant) if page.more and page.tenants else None

    first = TenantsAsk(tenant=tenant)
    pages = paged(cell, "admission", cell.subjects.tenants_ask(), first, TenantsAnswer, after)
    return [use async for page in pages for use in page.tenants]


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
