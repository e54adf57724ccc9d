"""What the load generator needs of traces, in one place: the form in memory and the reader. The work is in `traces`."""

from saga.load.traces.files import read_sessions
from saga.load.traces.session import MAIN_AGENT, Run, Session, Sessions, Step, SubAgent, TraceError

__all__ = ["MAIN_AGENT", "Run", "Session", "Sessions", "Step", "SubAgent", "TraceError", "read_sessions"]
