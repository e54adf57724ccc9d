"""What an engine has done so far: plain counters, read by /metrics, /v1/loads and reports. Times are engine seconds."""

from saga.engine.request import EngineRequest


class EngineStats:
    """Counters of one EngineCore; they only grow."""

    __slots__ = (
        "_busy_s",
        "_busy_since_s",
        "aborted",
        "cached_tokens",
        "finished",
        "generated_tokens",
        "iterations",
        "prefilled_tokens",
        "prompt_tokens",
        "requests",
        "retractions",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.finished = 0
        self.aborted = 0
        self.iterations = 0
        self.prompt_tokens = 0
        """Prompt tokens of requests that were started."""
        self.cached_tokens = 0
        """Those of them that were in the cache."""
        self.prefilled_tokens = 0
        """Tokens computed by prefill, after retractions too."""
        self.generated_tokens = 0
        self.retractions = 0
        self._busy_s = 0.0
        self._busy_since_s: float | None = None

    def works(self, now_s: float, *, busy: bool) -> None:
        """From now on iterations follow each other, or nothing runs."""
        if busy and self._busy_since_s is None:
            self._busy_since_s = now_s
        elif not busy and self._busy_since_s is not None:
            self._busy_s += now_s - self._busy_since_s
            self._busy_since_s = None

    def busy_s(self, now_s: float) -> float:
        """For how long something ran, until now."""
        return self._busy_s + (now_s - self._busy_since_s if self._busy_since_s is not None else 0.0)

    def finish(self, request: EngineRequest, reason: str) -> None:
        """Count a request's end."""
        del request
        if reason == "abort":
            self.aborted += 1
        else:
            self.finished += 1
