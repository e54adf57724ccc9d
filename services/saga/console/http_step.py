"""Why one step ran where and when it did: what the leaders of admission and placement remember of it."""

import re
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from saga.console.http_answers import BadQuestionError
from saga.contract.ids import STEP_ID_CHARS, StepId
from saga.contract.messages import WhyAsk, WhyTold
from saga.contract.subjects import Subjects
from saga.contract.why_messages import StepTold
from saga.runtime.errors import BusUnavailable, MessageError

if TYPE_CHECKING:
    from saga.console.http_server import Desk

_STEP_ID: Final = re.compile(rf"[0-9a-f]{{{STEP_ID_CHARS}}}")


class StepRemembered(msgspec.Struct, frozen=True, kw_only=True):
    """What each leader remembers; None: nothing, or it does not answer."""

    admission: StepTold | None
    placement: StepTold | None


class StepQuestions:
    """Answers them."""

    def __init__(self, desk: "Desk", cell: str) -> None:
        self._desk = desk
        self._subjects = Subjects(cell)

    async def show(self, request: web.Request) -> web.Response:
        """One step, by its id."""
        step_id = request.query.get("id", "")
        if not _STEP_ID.fullmatch(step_id):
            raise BadQuestionError(400, f"id={step_id[:40]!r} is no step: they are {STEP_ID_CHARS} hexadecimal digits.")
        told = StepRemembered(
            admission=await self._of(self._subjects.admission_ask(), StepId(step_id)),
            placement=await self._of(self._subjects.placement_ask(), StepId(step_id)),
        )
        if told.admission is None and told.placement is None:
            raise BadQuestionError(
                404, "No leader remembers this step: it is too long ago, or they have changed since."
            )
        return web.Response(body=msgspec.json.encode(told), content_type="application/json")

    async def _of(self, subject: str, step_id: StepId) -> StepTold | None:
        try:
            answer = await self._desk.ask(subject, WhyAsk(step_id=step_id))
        except (BusUnavailable, MessageError):
            return None
        return answer.steps[0] if isinstance(answer, WhyTold) and answer.steps else None
