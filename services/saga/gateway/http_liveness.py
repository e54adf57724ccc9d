"""Notices an engine whose machine is gone: nobody is left there to close its connections. Used by `http_engine.py`.

A stream that only listens would wait for ever, and a request sent to such an engine for a quarter of an hour, as TCP
does by itself. The kernel asks instead, and ends the connection: the step goes on elsewhere, as after any death.
"""

import asyncio
import socket
from typing import Final

ASK_AFTER_S: Final = 5  # of silence
ASK_EVERY_S: Final = 2
GONE_AFTER_S: Final = 10  # without an answer, to a question or to a request
_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux's


def watch(transport: asyncio.BaseTransport) -> None:
    """Has the kernel watch over this connection."""
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if _USER_TIMEOUT is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, ASK_AFTER_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, ASK_EVERY_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, GONE_AFTER_S // ASK_EVERY_S)
        connection.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, 1_000 * GONE_AFTER_S)
