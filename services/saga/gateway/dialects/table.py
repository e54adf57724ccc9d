"""All dialects, by name and by path."""

from typing import Final

from saga.gateway.dialects.chat import Chat
from saga.gateway.dialects.completions import Completions
from saga.gateway.dialects.dialect import Api, Dialect
from saga.gateway.dialects.messages import Messages
from saga.gateway.dialects.responses import Responses

DIALECTS: Final[dict[Api, Dialect]] = {
    dialect.api: dialect for dialect in (Chat(), Completions(), Messages(), Responses())
}


def of_path(path: str) -> Dialect:
    """The API that a path belongs to; chat's, if none."""
    for dialect in DIALECTS.values():
        if path == dialect.path or path.startswith(dialect.path + "/"):
            return dialect
    return DIALECTS["chat"]
