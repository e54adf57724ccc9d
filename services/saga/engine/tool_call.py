"""A valid call of a tool for `tool_choice: required`: JSON arguments that satisfy the schema's required properties.

Knows the simple types, enum, const, nested objects, arrays and the first branch of anyOf / oneOf / allOf; patterns and
the like are not honoured. Strings are babble of a wanted length. Called when a request is parsed.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]

_MAX_DEPTH: Final = 8
_WORD_TOKENS: Final = 12


class ToolCall:
    """One call; as tokens it is what SGLang's constrained decoding says: a JSON list of name and parameters."""

    __slots__ = ("arguments", "head", "name", "tail")

    def __init__(self, name: str, arguments: str) -> None:
        self.name = name
        self.arguments = arguments
        self.head = f'[{{"name": {_dump(name)}, "parameters": '
        self.tail = "}]"

    @property
    def text(self) -> str:
        """All that the engine says, one token per byte."""
        return self.head + self.arguments + self.tail


def make_call(name: str, schema: Mapping[str, object], babble: str, fill_tokens: int = 0) -> ToolCall:
    """A call of tool `name`. Strings are cut from `babble`; the first free one grows so that the call has
    `fill_tokens` tokens, where that is possible."""
    filler = _Filler(babble)
    call = ToolCall(name, _dump(filler.value(schema, 0)))
    missing = fill_tokens - len(call.text.encode())
    if missing <= 0 or not filler.used:
        return call
    filler = _Filler(babble, first_tokens=_WORD_TOKENS + missing)
    return ToolCall(name, _dump(filler.value(schema, 0)))


class _Filler:
    """Makes values for schemas; remembers whether a free string was among them."""

    def __init__(self, babble: str, first_tokens: int = _WORD_TOKENS) -> None:
        self.used = False
        self._babble = babble
        self._first_tokens = first_tokens

    def value(self, schema: object, depth: int) -> Json:
        if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
            return None
        for key in ("const", "default"):
            if key in schema:
                return _plain(schema[key])
        choices = schema.get("enum")
        if isinstance(choices, list) and choices:
            return _plain(choices[0])
        for key in ("anyOf", "oneOf", "allOf"):
            branches = schema.get(key)
            if isinstance(branches, list) and branches:
                return self.value(branches[0], depth + 1)
        return self._typed(schema, depth)

    def _typed(self, schema: Mapping[str, object], depth: int) -> Json:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = kind[0] if kind else "object"
        match kind:
            case "string":
                return self._string()
            case "integer" | "number":
                least = schema.get("minimum", schema.get("exclusiveMinimum"))
                step = 1 if "exclusiveMinimum" in schema else 0
                return least + step if isinstance(least, int | float) else 1
            case "boolean":
                return True
            case "null":
                return None
            case "array":
                least = schema.get("minItems", 0)
                items = schema.get("items", {"type": "string"})
                return [self.value(items, depth + 1) for _ in range(least if isinstance(least, int) else 0)]
            case _:
                return self._object(schema, depth)

    def _object(self, schema: Mapping[str, object], depth: int) -> Json:
        properties = schema.get("properties")
        required = schema.get("required")
        if not isinstance(properties, Mapping) or not isinstance(required, list):
            return {}
        return {name: self.value(properties.get(name), depth + 1) for name in required if isinstance(name, str)}

    def _string(self) -> str:
        tokens = _WORD_TOKENS if self.used else self._first_tokens
        self.used = True
        copies = -(-tokens // max(1, len(self._babble)))
        return (self._babble * copies)[:tokens]


def _plain(value: object) -> Json:
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    plain: Json = msgspec.convert(value, Json)
    return plain


def _dump(value: Json) -> str:
    return msgspec.json.encode(value).decode()
