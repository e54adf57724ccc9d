"""What SGLang 0.5.23 gives a chat template for a request: messages, tools, options. Pure.

Follows `entrypoints/openai/serving_chat.py` there. Not everything can be followed from outside: parts that are no text,
reasoning that an engine's parser wraps, templates of the client's own. Such a chat is `exact=False`: its length is no
evidence against the rendering. Called by `prompt_tokens.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from saga.gateway.chat_template import ContentForm
from saga.gateway.dialects.dialect import Asked
from saga.gateway.dialects.prompt import ChatPrompt

TEXT_PARTS: Final = ("text", "input_text")
MEDIA: Final = {"image_url": "image", "input_image": "image", "video_url": "video", "audio_url": "audio"}
_KEPT: Final = ("tool_call_id", "name", "phase", "reasoning_content", "tools", "prefix")  # of a message, beside content
_NO_EFFORT: Final = "none"

Message = dict[str, Any]
_messages = msgspec.json.Decoder(list[Message])
_tools = msgspec.json.Decoder(list[Message] | None)
_options = msgspec.json.Decoder(Message | None)
_json = msgspec.json.Decoder()


class TemplateInput(msgspec.Struct, frozen=True):
    """One chat, ready for its template."""

    messages: Sequence[Message]
    tools: Sequence[object] | None
    options: Mapping[str, object]
    prefix: str = ""  # of the answer: goes behind the rendered prompt
    add_generation_prompt: bool = True
    exact: bool = True


def template_input(asked: Asked, prompt: ChatPrompt, form: ContentForm) -> TemplateInput:
    """Of a request to any API with messages. Raises msgspec.DecodeError for fields that no engine would take."""
    raw = asked.raw
    if asked.api == "chat":
        given = _messages.decode(raw["messages"])
        tools, exact = _chat_tools(raw.get("tools"), raw.get("tool_choice"))
    else:
        given = [dict(message) for message in prompt.messages]
        tools, exact = _anthropic_tools(raw.get("tools")) if asked.api == "messages" else _flat_tools(raw.get("tools"))
        # Where a template takes system messages only at its head, SGLang gathers them there.
        exact = exact and not any(message["role"] == "system" for message in given[1:])
    messages = []
    for one in given:
        message, clear = _message(one, form)
        messages.append(message)
        exact = exact and clear
    options, clear = _template_options(asked)
    add = raw.get("add_generation_prompt")
    generation = None if add is None or bytes(add) == b"null" else bytes(add) == b"true"
    prefix = ""
    if generation is None or prompt.continues:
        messages, prefix = _last_assistant(messages, continues=prompt.continues)
    return TemplateInput(messages, tools, options, prefix, generation is not False, exact and clear)


def _message(given: Message, form: ContentForm) -> tuple[Message, bool]:
    """(the message, whether nothing of it is beyond us)."""
    role = str(given.get("role", "")).lower()
    content, exact = _content(given.get("content"), form)
    if role == "tool" and isinstance(content, list) and all(part.get("type") == "text" for part in content):
        content = " ".join([str(part.get("text", "")) for part in content])
    message: Message = {"role": role, "content": content}
    if role == "user":
        return message, exact
    for name in _KEPT:
        if given.get(name) is not None:
            message[name] = given[name]
    if given.get("tool_calls") is not None:
        message["tool_calls"] = [_call(call) for call in given["tool_calls"]]
    return message, exact and not given.get("reasoning")


def _content(content: object, form: ContentForm) -> tuple[Any, bool]:
    if content is None:
        return "", True
    if not isinstance(content, list):
        return content, True
    parts: list[Message] = []
    exact = True
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in TEXT_PARTS:
            parts.append({"type": "text", "text": part.get("text", "")})
        elif kind in MEDIA:
            parts.append({"type": MEDIA[kind]})
            exact = False
        else:
            exact = False
    if form == "parts":
        return parts, exact
    return " ".join([part["text"] for part in parts if part["type"] == "text"]), exact


def _call(call: Message) -> Message:
    """A call of a tool that an assistant made: templates get its arguments decoded."""
    function = call.get("function") or {}
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = _json.decode(arguments.encode("utf-8", "replace"))
    return {
        "id": call.get("id"),
        "index": call.get("index"),
        "type": "function",
        "function": {"name": function.get("name"), "arguments": arguments},
    }


def _chat_tools(given: msgspec.Raw | None, choice: msgspec.Raw | None) -> tuple[list[Message] | None, bool]:
    tools = _tools.decode(given) if given is not None else None
    chosen = _json.decode(choice) if choice is not None else None
    if not tools or chosen == "none":
        return None, True
    if isinstance(chosen, dict):
        name = (chosen.get("function") or {}).get("name")
        tools = [tool for tool in tools if (tool.get("function") or {}).get("name") == name]
    return [_tool(tool) for tool in tools] or None, True


def _tool(tool: Message) -> Message:
    """In the shape and order of SGLang's own model of it."""
    given: Message = tool.get("function") or {}
    known = ("description", "name", "parameters", "strict", "defer_loading")
    optional = ("strict", "defer_loading")
    function = {
        name: given[name] for name in given if name in known and (given[name] is not None or name not in optional)
    }
    deferred = tool.get("defer_loading")
    if deferred is not None:
        function.setdefault("defer_loading", deferred)
    for name in ("description", "parameters"):
        function.setdefault(name, None)
    return {"type": tool.get("type", "function"), "function": function, "defer_loading": deferred}


def _anthropic_tools(given: msgspec.Raw | None) -> tuple[list[Message] | None, bool]:
    tools = _tools.decode(given) if given is not None else None
    if not tools:
        return None, True
    shaped = [
        {
            "type": "function",
            "function": {
                "name": tool.get("name"),
                "description": tool.get("description") or "",
                "parameters": tool.get("input_schema"),
                "strict": tool.get("strict") or False,
            },
        }
        for tool in tools
    ]
    return [_tool(tool) for tool in shaped], all(tool.get("type") in (None, "custom") for tool in tools)


def _flat_tools(given: msgspec.Raw | None) -> tuple[list[Message] | None, bool]:
    """Of the Responses API, where a function's fields stand beside its type."""
    tools = _tools.decode(given) if given is not None else None
    if not tools:
        return None, True
    functions = [tool for tool in tools if tool.get("type") == "function"]
    named = ("name", "description", "parameters")  # the order in which SGLang puts them
    shaped = [
        {
            "type": "function",
            "function": {name: tool.get(name) for name in named} | {"strict": tool.get("strict", False)},
        }
        for tool in functions
    ]
    return [_tool(tool) for tool in shaped] or None, len(functions) == len(tools)


def _template_options(asked: Asked) -> tuple[dict[str, object], bool]:
    """What a template is given beside the chat."""
    raw = asked.raw
    if asked.api != "chat":
        return {}, not any(name in raw for name in ("thinking", "reasoning", "output_config"))
    options = dict(_options.decode(raw["chat_template_kwargs"]) or {}) if "chat_template_kwargs" in raw else {}
    effort = _json.decode(raw["reasoning_effort"]) if "reasoning_effort" in raw else None
    if effort is not None:
        options.setdefault("thinking", effort != _NO_EFFORT)
        options.setdefault("enable_thinking", effort != _NO_EFFORT)
        options = {"reasoning_effort": effort, **options}
    exact = "reasoning" not in raw and "chat_template" not in options
    return {name: value for name, value in options.items() if name != "chat_template"}, exact


def _last_assistant(messages: list[Message], *, continues: bool) -> tuple[list[Message], str]:
    """SGLang never lets an assistant have the last word: it is gone on with, or becomes the user's."""
    if not messages or messages[-1]["role"] != "assistant" or not isinstance(messages[-1]["content"], str):
        return messages, ""
    text = messages[-1]["content"]
    if continues:
        return messages[:-1], text
    return [*messages[:-1], {"role": "user", "content": text}], ""
