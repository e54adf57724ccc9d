"""Whether our tokens are the engine's: compared on every step, believed until they are not. Pure.

Each answer says how long the engine found its prompt; now and then an engine is asked for all its tokens. A model whose
prompts we get wrong is no longer described by page hashes of ours: placement then goes by what the engine says of the
session (docs/tokens.md). Trust comes back when the counts agree for long. Used by `http_prompts.py`.
"""

from collections import OrderedDict
from typing import Final, Literal

from saga.contract.ids import PoolId, SessionId
from saga.gateway.dialects.dialect import Api

LOST_AFTER: Final = 3  # answers in a row
BACK_AFTER: Final = 50
ASK_EVERY: Final = 1_000  # steps of one API and model
MAX_SESSIONS: Final = 100_000  # that disagreed
_WEIGHT: Final = 0.2  # of the newest answer in a ratio

Finding = Literal["", "lost", "back"]


class _Line:
    """One model through one API."""

    __slots__ = ("agreed", "disagreed", "ratio", "steps", "trusted")

    def __init__(self) -> None:
        self.trusted = True
        self.agreed = 0  # in a row
        self.disagreed = 0
        self.steps = 0
        self.ratio = 1.0  # the engine's tokens to ours


class Agreement:
    """All models of one gateway."""

    def __init__(self) -> None:
        self._lines: dict[tuple[PoolId, Api], _Line] = {}
        self._sessions: OrderedDict[SessionId, None] = OrderedDict()  # whose last answer disagreed

    def trusts(self, pool: PoolId, api: Api, session: SessionId) -> bool:
        """Whether our tokens of its next prompt may be taken for the engine's."""
        return self._line(pool, api).trusted and session not in self._sessions

    def guess(self, pool: PoolId, api: Api, tokens: int) -> int:
        """Length of a prompt that has so many tokens by our count."""
        return max(1, round(tokens * self._line(pool, api).ratio))

    def asks(self, pool: PoolId, api: Api) -> bool:
        """Whether an engine shall be asked for this step's tokens: at the first, and then at each thousandth."""
        line = self._line(pool, api)
        line.steps += 1
        return line.steps % ASK_EVERY == 1

    def counted(
        self, pool: PoolId, api: Api, session: SessionId, *, ours: int, engines: int, exact: bool = True
    ) -> Finding:
        """A step's prompt, by our count and by the engine's. `exact`: if they differ, the tokenizer is to blame."""
        line = self._line(pool, api)
        if ours == engines:
            self._sessions.pop(session, None)
            return self._agreed(line) if exact else ""
        self._sessions[session] = None
        self._sessions.move_to_end(session)
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        if not exact:
            return ""
        seen = engines / max(1, ours)
        line.ratio = seen if line.ratio == 1.0 else line.ratio + _WEIGHT * (seen - line.ratio)
        line.agreed = 0
        line.disagreed += 1
        return self._lose(line) if line.disagreed >= LOST_AFTER else ""

    def tokenized(self, pool: PoolId, api: Api, *, same: bool) -> Finding:
        """An engine has told its tokens of a prompt: one that differs is proof enough."""
        line = self._line(pool, api)
        if same:
            return ""
        line.agreed = 0
        return self._lose(line)

    def untrusted(self) -> list[tuple[PoolId, Api]]:
        """What goes without our page hashes."""
        return [key for key, line in self._lines.items() if not line.trusted]

    def _agreed(self, line: _Line) -> Finding:
        line.disagreed = 0
        line.agreed += 1
        if line.trusted or line.agreed < BACK_AFTER:
            return ""
        line.trusted, line.ratio = True, 1.0
        return "back"

    def _lose(self, line: _Line) -> Finding:
        if not line.trusted:
            return ""
        line.trusted = False
        return "lost"

    def _line(self, pool: PoolId, api: Api) -> _Line:
        line = self._lines.get((pool, api))
        if line is None:
            line = self._lines[pool, api] = _Line()
        return line
