"""How much a core remembers: the length of every container below it, by its path. For bench/soak.py.

`board.sessions` is one path, and so is what is in all of its values: `board.sessions[*].answered` counts them together,
so that a book in which each entry grows is found as well as one that gets more entries.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any

DEEPEST = 12  # objects within one another


def books(core: object) -> dict[str, int]:
    """Path to number of entries, of all containers that are not empty."""
    sizes: Counter[str] = Counter()
    _walk(core, "", sizes, set(), 0)
    return dict(sorted(sizes.items()))


def _walk(thing: Any, path: str, sizes: Counter[str], seen: set[int], depth: int) -> None:  # noqa: ANN401 - anything
    if depth > DEEPEST or id(thing) in seen:
        return
    inside = list(_entries(thing))
    if inside or _is_ours(thing):
        seen.add(id(thing))
    if isinstance(thing, bytearray | Mapping | AbstractSet | list | deque):
        if len(thing):
            sizes[path or "."] += len(thing)
        for entry in inside:
            _walk(entry, f"{path}[*]", sizes, seen, depth + 1)
    elif isinstance(thing, tuple):
        for entry in inside:
            _walk(entry, path, sizes, seen, depth + 1)
    elif _is_ours(thing):
        for name, value in _fields(thing):
            _walk(value, f"{path}.{name}" if path else name, sizes, seen, depth + 1)


def _entries(thing: Any) -> Iterator[Any]:  # noqa: ANN401 - as above
    """What is in a container and may hold containers itself."""
    if isinstance(thing, Mapping):
        found: Iterator[Any] = iter(thing.values())
    elif isinstance(thing, AbstractSet | list | deque | tuple):
        found = iter(thing)
    else:
        return
    yield from (
        entry for entry in found if _is_ours(entry) or isinstance(entry, Mapping | AbstractSet | list | deque | tuple)
    )


def _is_ours(thing: object) -> bool:
    return type(thing).__module__.startswith("saga.") and not isinstance(thing, type | Enum)


def _fields(thing: object) -> Iterator[tuple[str, Any]]:
    names = [name for kind in type(thing).__mro__ for name in _slots(kind)]
    names += getattr(thing, "__dict__", {})
    for name in names:
        value = getattr(thing, name, None)
        if not callable(value):
            yield name, value


def _slots(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ()) or kind.__dict__.get("__struct_fields__", ())
    if isinstance(slots, str):
        return (slots,)
    return tuple(slots) if isinstance(slots, tuple | list) else ()
