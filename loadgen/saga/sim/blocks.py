"""Page hashes of recorded prompts: made once for each recorded agent, then given to every draw of it with a salt.

A hash is a function of its block and of all before it. A draw's hashes are those of the recording, each XORed with a
number of that draw, except in the prefix that sessions share. Called by `recorded`.
"""

from array import array
from collections.abc import Sequence
from itertools import chain, islice

from msgspec import Struct

from saga.load.plan import PlannedAgent
from saga.load.trace import Run
from saga.load.traces.prompts import common_blocks, following
from saga.sim.conversation import HASH_BYTES, SimStep

_MASK = (1 << 64) - 1
_PRIVATE = 1 << 40  # above every recorded block id: what no other prompt has


class Change(Struct, frozen=True):
    """From one step's prompt and answer to the next one's: what stays, and the hashes that follow.

    Of those, the first `shared_pages` are in the prefix that sessions share.
    """

    kept_pages: int
    shared_pages: int
    hashes: bytes


def changes(agent: PlannedAgent, index: int, page_tokens: int, pages_per_block: int) -> list[Change]:
    """Those of each step of an agent; `index`: which one of its session it is, as its answers are its own.

    The pages of an answer are those of the next prompt where that extends this one.
    """
    found: list[Change] = []
    first_key = _mix(*agent.shared_key)
    private = _PRIVATE * (index + 1)
    keys = array("Q")  # of the last prompt and answer
    last_blocks: Sequence[Run] = ()
    last_shared = 0
    for at, step in enumerate(agent.steps):
        after = agent.steps[at + 1] if at + 1 < len(agent.steps) else None
        blocks = after.blocks if after is not None and after.extends else step.blocks
        wanted = (step.prompt_tokens + step.max_tokens) // page_tokens
        shared = step.shared_blocks * pages_per_block
        kept = min(len(keys), wanted, common_blocks(last_blocks, blocks) * pages_per_block)
        if shared != last_shared:
            kept = min(kept, shared, last_shared)
        del keys[kept:]
        key = keys[-1] if keys else first_key
        skipped, part = divmod(kept, pages_per_block)
        runs = ((first * pages_per_block, count * pages_per_block) for first, count in following(blocks, skipped))
        ids = chain.from_iterable(range(first, first + count) for first, count in runs)
        for page, block in enumerate(islice(ids, part, part + wanted - kept), kept):
            key = _mix(key, ~page if page < shared else block)  # no block has a negative id
            keys.append(key)
        while len(keys) < wanted:  # the tail, and an answer that no later prompt repeats
            private += 1
            key = _mix(key, private)
            keys.append(key)
        found.append(Change(kept, max(0, min(shared, len(keys)) - kept), keys[kept:].tobytes()))
        last_blocks, last_shared = blocks, shared
    return found


class BlockPages:
    """The hashes of one draw of an agent, step by step."""

    __slots__ = ("_changes", "_hashes", "_key", "_salt", "_seen_shared", "_shared")

    def __init__(
        self,
        steps: Sequence[Change],
        number: int,
        shared_key: tuple[int, int],
        shared_pages: Sequence[int],
        seen_shared: dict[tuple[int, int], int],
    ) -> None:
        """`shared_pages`: of each step; `seen_shared`: of each prefix, how many of its pages some prompt had."""
        self._changes = steps
        self._salt = _mix(0, number + 1).to_bytes(HASH_BYTES, "little")
        self._key = shared_key
        self._shared = shared_pages
        self._seen_shared = seen_shared
        self._hashes = b""

    def advance(self, index: int, step: SimStep) -> tuple[bytes, int]:  # noqa: ARG002 - it is in the change
        """As Pages; step by step."""
        change = self._changes[index]
        known = change.kept_pages
        self._hashes = hashes = self._hashes[: known * HASH_BYTES] + self._salted(change)
        shared = self._shared[index]
        seen = self._seen_shared.get(self._key, 0)
        if known < shared:
            known = max(known, min(shared, seen))
        had = min(shared, len(hashes) // HASH_BYTES)
        if had > seen:
            self._seen_shared[self._key] = had
        return hashes, known

    def _salted(self, change: Change) -> bytes:
        plain = change.shared_pages * HASH_BYTES
        own = change.hashes[plain:]
        mixed = int.from_bytes(own, "little") ^ int.from_bytes(self._salt * (len(own) // HASH_BYTES), "little")
        return change.hashes[:plain] + mixed.to_bytes(len(own), "little")


def _mix(key: int, value: int) -> int:
    """A step of the chain: for a given key different values give different keys."""
    mixed = ((key ^ (value + 0x9E3779B97F4A7C15)) * 0xD6E8FEB86659FD93) & _MASK
    return mixed ^ (mixed >> 32)
