"""What clients of a mesh saw: each step's attempts, its answer, and every silence. Pure; written by `clients.py`."""

import statistics
from collections.abc import Iterable, Iterator
from typing import Final, Literal

from msgspec import Struct

from saga.engine.text import Babble
from saga.kv.tokens import encode_bytes

SEED: Final = 7  # of every answer's text
SILENCE_S: Final = 0.05  # shorter ones are not kept

# answered: to its last event. retryable: refused or broken off with an error that says to ask again. cut: the
# connection broke or was refused. wrong: anything else; no fault excuses it.
Outcome = Literal["answered", "retryable", "cut", "wrong"]


class Attempt(Struct, frozen=True, kw_only=True):
    """One HTTP request of a step. Times are monotonic seconds."""

    gateway: int
    sent_s: float
    over_s: float
    outcome: Outcome
    detail: str = ""
    text: str = ""  # what came of the answer
    step_id: str = ""  # the gateway's, where it said one


class Silence(Struct, frozen=True):
    """A client waited for the next sign of its answer from one moment to the other, monotonic seconds."""

    begin_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """How long."""
        return self.end_s - self.begin_s


class StepStory(Struct, kw_only=True):
    """One step of one session as its client saw it, over all attempts."""

    client: int
    tenant: str
    session: str
    number: int  # in its session
    prompt: str
    max_tokens: int
    sent_s: float
    expected_cached_tokens: int = 0  # whole pages of what the session had in the KV when its last step ended
    attempts: list[Attempt] = []
    silences: list[Silence] = []
    text: str = ""
    over_s: float = -1.0  # answered, or given up
    cached_tokens: int = -1  # as the usage says; -1: it does not

    @property
    def answered(self) -> bool:
        """Whether the client has its answer."""
        return bool(self.attempts) and self.attempts[-1].outcome == "answered"

    @property
    def right(self) -> bool:
        """Whether the answer is the one that an undisturbed engine gives, no token missing, doubled or different; and
        what came of it before an attempt broke off is its beginning."""
        answer = answer_of(self.prompt, self.max_tokens)
        broken = (attempt.text for attempt in self.attempts if attempt.outcome != "answered")
        return (not self.answered or self.text == answer) and all(map(answer.startswith, broken))


def answer_of(prompt: str, max_tokens: int) -> str:
    """What a simulated engine says, whichever it is and however often it dies meanwhile."""
    return Babble(SEED, encode_bytes(prompt.encode()), 1.0).first(max_tokens).decode()


class Window(Struct, frozen=True):
    """From one moment to another, monotonic seconds."""

    begin_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """How long."""
        return self.end_s - self.begin_s


def longest_silences_s(stories: Iterable[StepStory], window: Window) -> list[float]:
    """Of each client, the longest that touches the window; ascending."""
    longest: dict[int, float] = {}
    for story in stories:
        for silence in story.silences:
            if silence.end_s >= window.begin_s and silence.begin_s <= window.end_s:
                longest[story.client] = max(longest.get(story.client, 0.0), silence.length_s)
    return sorted(longest.values())


def usual_wait_s(stories: Iterable[StepStory], calm: Window) -> float:
    """The median step's longest silence in calm."""
    waits = [max((silence.length_s for silence in story.silences), default=0.0) for story in _sent_in(stories, calm)]
    return statistics.median(waits) if waits else 0.0


def pauses_s(stories: list[StepStory], calm: Window, struck: Window) -> list[float]:
    """How long a fault kept each client waiting: its longest silence in the window that begins with the fault, less
    what the median step waits in calm. Ascending, none below 0."""
    usual_s = usual_wait_s(stories, calm)
    return [max(0.0, silence_s - usual_s) for silence_s in longest_silences_s(stories, struck)]


def calm_pause_s(stories: list[StepStory], calm: Window) -> float:
    """The same of a window in which nothing was done: its longest silence, of any client, that ended in time."""
    ended = [s.length_s for story in stories for s in story.silences if calm.begin_s <= s.end_s <= calm.end_s]
    return max(0.0, max(ended, default=0.0) - usual_wait_s(stories, calm))


def affinity(stories: Iterable[StepStory], window: Window) -> float | None:
    """Cached tokens over expected ones, of steps sent in the window and answered; None when nothing was expected."""
    expected = found = 0
    for story in _sent_in(stories, window):
        if story.answered and story.cached_tokens >= 0:
            expected += story.expected_cached_tokens
            found += min(story.cached_tokens, story.expected_cached_tokens)
    return found / expected if expected else None


def delivered(stories: Iterable[StepStory], window: Window) -> dict[str, int]:
    """Steps answered in the window, by tenant: all cost the same to within their prompts."""
    counts: dict[str, int] = {}
    for story in stories:
        counts.setdefault(story.tenant, 0)
        if story.answered and window.begin_s <= story.over_s < window.end_s:
            counts[story.tenant] += 1
    return counts


def _sent_in(stories: Iterable[StepStory], window: Window) -> Iterator[StepStory]:
    return (story for story in stories if window.begin_s <= story.sent_s < window.end_s)
