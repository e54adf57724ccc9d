"""What can go wrong on the bus, named for what the caller can do about it.

StartError is the contract's; it is repeated here because whoever starts a process looks for it beside the runtime.
"""

from saga.contract.errors import MessageError, StartError

__all__ = [
    "BusTimeout",
    "BusUnavailable",
    "KvConflict",
    "MessageError",
    "MessageTooLarge",
    "NoResponders",
    "StartError",
]


class BusUnavailable(Exception):  # noqa: N818 - named for the state, as its two kinds are
    """The bus did not do it now. It may have been done all the same; try again or go on without."""


class BusTimeout(BusUnavailable):
    """No answer within the time given: the bus is away, or the other side is slow."""


class NoResponders(BusUnavailable):
    """The bus is there, but nobody listens on that subject (yet)."""


class KvConflict(Exception):  # noqa: N818 - a refusal, not a fault
    """The key has another revision than the caller believed: somebody else wrote it. Read it again before acting."""

    def __init__(self, bucket: str, key: str, revision: int) -> None:
        super().__init__(f"{bucket}/{key} is not at revision {revision}")
        self.bucket = bucket
        self.key = key
        self.revision = revision


class MessageTooLarge(Exception):  # noqa: N818 - named for what to change
    """A payload above the contract's limit: the sender must split it. Always a bug of ours."""

    def __init__(self, subject: str, size: int, limit: int) -> None:
        super().__init__(f"{size} bytes on {subject}, the limit is {limit}")
        self.subject = subject
        self.size = size
        self.limit = limit
