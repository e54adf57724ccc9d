"""The few error types that cross a package boundary, named for what the caller can do about them."""


class StartError(Exception):
    """The process cannot start as configured. Its text is one line for the operator; the exit code is 2."""


class MessageError(Exception):
    """Bytes from the bus are no message of ours. Drop them and count; never act on a part."""
