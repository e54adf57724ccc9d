"""Follows the rows of a JetStream KV bucket that operators write: those there are, then each change."""

import asyncio
import contextlib
from typing import Final

from saga.runtime.bus import Bus, KvHandler
from saga.runtime.errors import BusUnavailable
from saga.runtime.log import get_logger

RETRY_S: Final = 0.25
log = get_logger()


async def follow(bus: Bus, bucket: str, handler: KvHandler, stopping: asyncio.Event) -> None:
    """Returns when `handler` has been told all that there is, or when `stopping` is set. Waits for a store that is not
    there yet: to begin without what operators said would be to begin without limits."""
    waiting = False
    while not stopping.is_set():
        try:
            await (await bus.kv(bucket)).watch(handler)
        except BusUnavailable as error:
            if not waiting:
                log.warning("rows.waiting", bucket=bucket, error=str(error))
            waiting = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), RETRY_S)
        else:
            return
