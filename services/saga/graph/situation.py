"""What a forecast may know of a session whose step just ended, in few kinds, so that each is seen often. Pure.

How the call ended tells most: which tool runs, or that a person answers. Then how quick this session has been of late,
for tools and for people each on their own, and whether it is a sub-agent's. Each kind of pace and agent is a number,
the context; the count of steps is told in half octaves.
"""

import math
from bisect import bisect_right
from typing import Final

import msgspec

from saga.contract.messages import StepFinished

NO_TOOL: Final = ""  # what follows is a person's, or nothing
TOOL_CHARS: Final = 64
UNKNOWN: Final = float("nan")  # a pace, before the first gap
FIRST_STEPS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 23, 32, 46, 64, 91, 128, 182, 256, 363, 512, 725)  # of each kind
MAX_STEP_KIND: Final = len(FIRST_STEPS)
_KINDS: Final = tuple(max(0, bisect_right(FIRST_STEPS, steps) - 1) for steps in range(FIRST_STEPS[-1] + 1))

PACE_EDGES_S: Final = (0.25, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 300.0, 1000.0)
SUB_AGENT: Final = len(PACE_EDGES_S) + 2  # added to the context of a sub-agent's session
CONTEXTS: Final = 2 * SUB_AGENT
_LOG_EDGES: Final = tuple(map(math.log, PACE_EDGES_S))
_PACE_RATE: Final = 0.5  # of the latest gap in the pace
_SHORTEST_S: Final = 0.05


class Situation(msgspec.Struct, frozen=True, gc=False):
    """A session whose step just ended."""

    tool: str  # that it called
    steps: int  # of the session so far
    context: int = 0  # its pace, and whether it is a sub-agent's


def context_of(pace: float, *, sub_agent: bool) -> int:
    """The context of a session with this pace (mean log seconds) of the gaps that are about to come."""
    quick = 0 if pace != pace else 1 + bisect_right(_LOG_EDGES, pace)  # noqa: PLR0124 - not a number: none known
    return quick + SUB_AGENT if sub_agent else quick


def paced(pace: float, gap_s: float) -> float:
    """The pace after one more gap."""
    latest = math.log(max(gap_s, _SHORTEST_S))
    return latest if pace != pace else pace + _PACE_RATE * (latest - pace)  # noqa: PLR0124 - as above


def step_kind(steps: int) -> int:
    """The half octave of a session's count of steps, from 0."""
    return _KINDS[steps] if 0 <= steps < len(_KINDS) else MAX_STEP_KIND - 1


def tool_of(message: StepFinished) -> str:
    """The name under which what follows a step is learnt: the tools it called, or none."""
    tools = message.tools
    if len(tools) == 1:  # nearly always
        return tools[0][:TOOL_CHARS].lstrip("~")
    return "+".join(sorted({tool[:TOOL_CHARS] for tool in tools[:64]}))[:TOOL_CHARS].lstrip("~")
