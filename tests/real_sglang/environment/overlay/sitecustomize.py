"""Runs at the start of every Python of this environment: lets torchvision import where its compiled half cannot load.

torchvision registers meta kernels for two operators that only its compiled half defines. Text models never call them,
so they are declared, without a body, just before that registration.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

_REGISTRATION = "torchvision._meta_registrations"
_OPERATORS = ("nms", "qnms")
_declared: list[object] = []  # a library that is collected takes its operators with it


class _DeclareFirst(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname != _REGISTRATION:
            return None
        sys.meta_path.remove(self)
        from torch.library import Library  # noqa: PLC0415 - most processes of the environment never import torch

        library = Library("torchvision", "DEF")
        for name in _OPERATORS:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        return importlib.util.find_spec(fullname)


sys.meta_path.insert(0, _DeclareFirst())
