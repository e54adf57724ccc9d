"""The highest fence that one process has seen of each service that leads: who speaks with a lower one was replaced."""

from typing import Literal

Led = Literal["admission", "placement"]


class Fences:
    """Of one core."""

    __slots__ = ("_highest",)

    def __init__(self) -> None:
        self._highest: dict[Led, int] = {"admission": 0, "placement": 0}

    def stale(self, service: Led, fence: int) -> bool:
        """Whether a later leader of the service was heard before; else this is the latest now."""
        if fence < self._highest[service]:
            return True
        self._highest[service] = fence
        return False
