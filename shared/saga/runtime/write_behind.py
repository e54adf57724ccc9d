"""Rows of a core's table on their way to JetStream KV: soon, latest value per key, in batches, never in the way."""

import asyncio

from saga.kernel.effects import Forget, Persist
from saga.runtime import metrics
from saga.runtime.bus import Bus
from saga.runtime.errors import BusUnavailable
from saga.runtime.log import get_logger

EVERY_S = 0.5
AT_ONCE = 64  # writes in flight
log = get_logger()
ROWS = metrics.counter("saga_table_rows_written_total", "Rows written behind")


class WriteBehind:
    """Dirty rows of one bucket. Spawn `run`; call `flush` once more at the end."""

    def __init__(self, bus: Bus, bucket: str) -> None:
        self._bus = bus
        self._bucket = bucket
        self._dirty: dict[str, bytes | None] = {}

    def take(self, row: Persist | Forget) -> None:
        """Remember to write, or to delete; a later call for the same key replaces it."""
        self._dirty[row.key] = row.value if isinstance(row, Persist) else None

    def drop(self) -> None:
        """Another leads: what is still here is its business."""
        self._dirty.clear()

    async def run(self) -> None:
        """Write whatever is dirty, twice a second, for ever."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what is dirty now; what cannot be written stays dirty."""
        batch, self._dirty = self._dirty, {}
        rows = list(batch.items())
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            results = await asyncio.gather(*(self._write(key, value) for key, value in part))
            for (key, value), written in zip(part, results, strict=True):
                if not written:
                    self._dirty.setdefault(key, value)

    async def load(self) -> tuple[bytes, ...]:
        """All rows there are; none when the store cannot be reached."""
        try:
            store = await self._bus.kv(self._bucket)
            return tuple(entry.value for entry in (await store.items()).values())
        except BusUnavailable as error:
            log.warning("table.unreadable", bucket=self._bucket, error=str(error))
            return ()

    async def _write(self, key: str, value: bytes | None) -> bool:
        try:
            store = await self._bus.kv(self._bucket)
            await (store.delete(key) if value is None else store.put(key, value))
        except BusUnavailable:
            return False
        ROWS.inc()
        return True
