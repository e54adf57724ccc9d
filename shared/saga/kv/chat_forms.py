"""The messages of every API as the chat messages that SGLang makes of them before it renders its template.

Follows SGLang 0.5.23 (`entrypoints/anthropic/serving.py`, `entrypoints/openai/serving_responses.py`) as far as role and
text go, since nothing else enters the tiny model's prompt: its template leaves calls of tools and reasoning out. Calls
stand beside the text for templates that show them. It takes system messages anywhere, so SGLang leaves them there.
What is no text (images, files) becomes a mark of its content, so that prompts with different images stay different.
Called by the gateway and by the simulated engine, which must agree; the result goes to `tokens.render_chat`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

TEXT_PARTS: Final = ("text", "input_text", "output_text")
DEVELOPER_LABEL: Final = "Developer instructions:"
ChatMessages = list[dict[str, object]]


class Block(msgspec.Struct, omit_defaults=True):
    """A part of a message's content, in any API: what is read of it."""

    type: str = ""
    text: str | None = None
    content: "str | list[Block] | None" = None  # of a tool's result
    name: str | None = None  # of a tool that is called
    id: str | None = None  # of the call
    input: object = None  # the call's arguments
    tool_use_id: str | None = None  # of the call that this is the result of
    source: object = None  # of an image
    image_url: object = None
    file_id: object = None
    file_data: object = None


Content = str | list[Block]


class Message(msgspec.Struct):
    """One message of the Messages API."""

    role: str
    content: Content


class Item(msgspec.Struct):
    """One item of the Responses API's `input`."""

    type: str | None = None
    role: str | None = None
    content: Content | None = None
    output: Content | None = None  # of a tool
    name: str | None = None  # of a tool that is called
    arguments: str | None = None
    call_id: str | None = None
    summary: list[Block] | None = None  # of reasoning
    phase: str | None = None


def mark(part: object) -> str:
    """Stands in a prompt for what is no text."""
    return f"[part {hashlib.sha256(msgspec.json.encode(part)).hexdigest()[:32]}]"


def readable(messages: Sequence[Mapping[str, object]]) -> ChatMessages:
    """Chat messages with a mark in the place of each part that is no text."""
    chat: ChatMessages = []
    for message in messages:
        content = message.get("content")
        chat.append(
            {**message, "content": [_readable(part) for part in content]} if isinstance(content, list) else {**message}
        )
    return chat


def _readable(part: object) -> object:
    if isinstance(part, Mapping) and part.get("type") in TEXT_PARTS and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    return _text(mark(part))


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


# --- the Messages API ----------------------------------------------------------------------------------------------


def of_messages(system: Content | None, messages: Sequence[Message]) -> ChatMessages:
    """The chat that a request to /v1/messages becomes."""
    parts = _system_parts(system)
    chat: ChatMessages = [{"role": "system", "content": "\n".join(parts)}] if parts else []
    for message in messages:
        if isinstance(message.content, str):
            chat.append({"role": message.role, "content": message.content})
        else:
            _add_blocks(chat, message.role, message.content)
    return chat


def _system_parts(system: Content | None) -> list[str]:
    if isinstance(system, str):
        return [system] if system.strip() else []
    return [block.text for block in system or () if block.type == "text" and block.text]


def _add_blocks(chat: ChatMessages, role: str, blocks: list[Block]) -> None:
    """Results of tools become messages of their own, in the order in which they stand."""
    parts: list[dict[str, str]] = []
    calls: list[object] = []
    for block in blocks:
        if block.type == "tool_result":
            if role == "user":
                _flush(chat, role, parts)
                named = {"tool_call_id": block.tool_use_id or block.id or ""}
                chat.append({"role": "tool", **named, "content": _result(block.content)})
            else:
                parts.append(_text(f"Tool result: {_result_text(block.content)}"))
        elif block.type == "tool_use":
            calls.append(_call(block.id, block.name, block.input or {}))
        elif block.type == "text":
            if block.text is not None:
                parts.append(_text(block.text))
        elif block.type not in ("thinking", "redacted_thinking"):
            parts.append(_text(mark(block)))
    if parts:
        _flush(chat, role, parts)
        if calls:
            chat[-1]["tool_calls"] = calls
    elif role != "user":
        chat.append({"role": role, "content": None, "tool_calls": calls} if calls else {"role": role, "content": ""})


def _call(call_id: str | None, name: str | None, arguments: object) -> dict[str, object]:
    """A call of a tool as the chat API has it; `arguments`: decoded, or as JSON."""
    return {"id": call_id, "type": "function", "function": {"name": name or "", "arguments": arguments}}


def _flush(chat: ChatMessages, role: str, parts: list[dict[str, str]]) -> None:
    if parts:
        chat.append({"role": role, "content": parts[0]["text"] if len(parts) == 1 else list(parts)})
        parts.clear()


def _result(content: Content | None) -> object:
    if not isinstance(content, list):
        return content or ""
    parts = [_text(mark(block) if block.type != "text" else block.text or "") for block in content if block.text != ""]
    return parts or ""


def _result_text(content: Content | None) -> str:
    if not isinstance(content, list):
        return content or ""
    return "\n".join(block.text for block in content if block.text)


# --- the Responses API ---------------------------------------------------------------------------------------------


def of_responses(instructions: str | None, given: str | Sequence[Item]) -> ChatMessages:
    """The chat that a request to /v1/responses becomes."""
    items = [Item(role="user", content=given)] if isinstance(given, str) else given
    chat: ChatMessages = [{"role": "system", "content": instructions}] if instructions else []
    for item in items:
        message = _of_item(item)
        if message is not None:
            _merge(chat, message)
    return chat


def _of_item(item: Item) -> dict[str, object] | None:
    if item.type in ("function_call", "custom_tool_call"):
        return {
            "role": "assistant",
            "content": None,
            "tool_calls": [_call(item.call_id, item.name, item.arguments or "{}")],
        }
    if item.type in ("function_call_output", "custom_tool_call_output"):
        output = item.output
        text = "".join(part.text or "" for part in output) if isinstance(output, list) else output
        return {"role": "tool", "tool_call_id": item.call_id or "", "content": text or ""}
    if item.type == "reasoning":
        said = any(part.text for part in (*(item.summary or ()), *_blocks(item.content)))
        return {"role": "assistant", "content": None, "reasoning": True} if said else None
    content: object = item.content
    if isinstance(content, list):
        content = [
            _text(part.text if part.type in TEXT_PARTS and part.text is not None else mark(part)) for part in content
        ]
    role = item.role or "user"
    if role == "developer":
        role, content = "system", _labelled(content)
    message: dict[str, object] = {"role": role, "content": content}
    return message | {"phase": item.phase} if item.phase is not None else message


def _blocks(content: Content | None) -> list[Block]:
    return content if isinstance(content, list) else []


def _labelled(content: object) -> object:
    if isinstance(content, str):
        return f"{DEVELOPER_LABEL}\n{content}"
    if isinstance(content, list) and content:
        return [_text(f"{DEVELOPER_LABEL}\n{content[0]['text']}"), *content[1:]]
    return DEVELOPER_LABEL


def _merge(chat: ChatMessages, message: dict[str, object]) -> None:
    """One turn of the assistant comes as several items."""
    last = chat[-1] if chat else None
    if (
        last is None
        or last["role"] != "assistant"
        or message["role"] != "assistant"
        or (last.get("phase") != message.get("phase") and not last.get("reasoning"))
    ):
        chat.append(message)
        return
    before, added = last["content"], message["content"]
    last["reasoning"] = bool(last.get("reasoning") and message.get("reasoning"))
    if "phase" in message:
        last["phase"] = message["phase"]
    if "tool_calls" in message:
        last["tool_calls"] = [*_calls(last), *_calls(message)]
    if not added:
        return
    if not before:
        last["content"] = added
    elif isinstance(before, str) and isinstance(added, str):
        last["content"] = f"{before}\n\n{added}"
    else:
        last["content"] = _parts(before) + _parts(added)


def _calls(message: Mapping[str, object]) -> list[object]:
    calls = message.get("tool_calls")
    return calls if isinstance(calls, list) else []


def _parts(content: object) -> list[object]:
    return [_text(content)] if isinstance(content, str) else list(content) if isinstance(content, list) else []
