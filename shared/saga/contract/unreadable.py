"""What msgspec raises for bytes that are not what they should be. Its own errors are not all of it.

Invalid UTF-8 (a UnicodeDecodeError, which is a ValueError), nesting and numbers beyond the interpreter's limits come as
Python's errors. Whoever reads bytes that others wrote catches all of these.
"""

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
