"""Libraries that are imported only when asked for: nobody needs all of them."""

from importlib import import_module
from types import ModuleType

from saga.client.errors import ExtraMissingError


def needed(module: str, package: str, extra: str) -> ModuleType:
    """The module. Raises ExtraMissingError that names its `package` and the extra of ours that brings it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".", maxsplit=1)[0]:
            raise  # it is there, and lacks something itself
        raise ExtraMissingError(
            f"{package} is not installed: pip install {package}, or pip install 'saga-mesh[{extra}]'.",
            name=error.name,
        ) from None
