"""Takes the place of SGLang's compiled CUDA kernels: any name can be imported from here, none can be called.

SGLang imports these names at module level whatever the device; with the torch-native attention backend a small text
model on a CPU calls none of them.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

__version__ = "0.4.10"  # SGLang refuses an older one
__path__: list[str] = []


class Kernel:
    """A kernel that is not there. Its attributes (overloads) are not there either."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, *_args: object, **_options: object) -> NoReturn:
        raise NotImplementedError(f"{self.__name__} is a CUDA kernel; this environment has only a CPU")

    def __getattr__(self, member: str) -> "Kernel":
        if member[:2] == "__":
            raise AttributeError(member)
        return Kernel(f"{self.__name__}.{member}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kernel) and other.__name__ == self.__name__

    def __hash__(self) -> int:
        return hash(self.__name__)


def __getattr__(name: str) -> Kernel:
    if name[:2] == "__":
        raise AttributeError(name)
    return Kernel(f"{__name__}.{name}")


class _Submodules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Any submodule exists, as empty as this one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        inside = fullname.startswith(f"{__name__}.")
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if inside else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        module.__getattr__ = __getattr__  # type: ignore[method-assign]
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


sys.meta_path.append(_Submodules())
