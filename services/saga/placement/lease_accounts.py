"""What became of every lease: each that was booked ends once, in one of four ways, or is still out. Kept by `board.py`.

`check` is the proof that none leaks: it holds after every event in the protocol's tests, at the end of each simulation,
and live as the metrics `saga_leases_*`.
"""

from typing import Final, Literal, get_args

LeaseEnd = Literal["finished", "aborted", "expired", "orphaned"]
# finished: its step's answer is complete. aborted: its client or its gateway did not want it, or its step failed.
# expired: nobody took it in time. orphaned: it was taken, and its holder is gone: gateway, engine, or their word.
ENDS: Final[tuple[LeaseEnd, ...]] = get_args(LeaseEnd)


class LeaseAccounts:
    """Of one placement core, since it was made. Leases that other leaders granted count once they are booked here."""

    __slots__ = ("ended", "granted")

    def __init__(self) -> None:
        self.granted = 0
        self.ended: dict[LeaseEnd, int] = dict.fromkeys(ENDS, 0)

    def check(self, live: int) -> None:
        """Assert that what was granted has ended or is among the `live`."""
        ended = sum(self.ended.values())
        assert self.granted == ended + live, f"{self.granted} leases granted, {ended} ended, {live} out: {self.ended}"
