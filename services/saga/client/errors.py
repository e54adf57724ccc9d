"""What can go wrong here, named for what the caller can do."""


class ExtraMissingError(ImportError):
    """A library that this needs is not installed; the message says how to install it."""


class GatewayError(Exception):
    """The gateway refused, or could not be reached (`status` 0)."""

    def __init__(self, status: int, message: str, *, code: str = "", param: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
