"""Requests as clients mean them, for each API: the material that `fuzz_requests.py` then breaks."""

from collections.abc import Callable
from random import Random
from typing import Any, Final

Body = dict[str, Any]
MODEL: Final = "tiny"
_WORDS: Final = (
    *("the", "fox", "jumps", "over", "data", "<|im_start|>", "über", "狐", "🦊", "\u0000", "\\", '"', "{}"),
    *("[DONE]", "data:", "\n\n", "event:", "error"),
)
_ROLES: Final = ("user", "assistant", "user", "assistant", "system", "developer", "tool", "function", "latest_reminder")
_NAMES: Final = ("search", "read_file", "bash", "", "x" * 200, "Read")


def text(random: Random, most: int = 30) -> str:
    """Some words, rarely many."""
    count = random.randrange(most) if random.random() < 0.98 else random.randrange(2_000)
    return " ".join([random.choice(_WORDS) for _ in range(count)])


def model(random: Random) -> str:
    """Nearly always the one there is."""
    return MODEL if random.random() < 0.97 else random.choice(("gpt-9", "", "tiny ", "x" * 500, "../tiny"))


def chat(random: Random) -> Body:
    """/v1/chat/completions."""
    body: Body = {"model": model(random), "messages": [chat_message(random) for _ in range(_few(random))]}
    return body | _openai_options(random) | _tools(random, lambda tool: {"type": "function", "function": tool})


def chat_message(random: Random) -> Body:
    """One message, with whatever content that role may have."""
    role = random.choice(_ROLES)
    kind = random.randrange(6)
    if kind < 3:
        return {"role": role, "content": text(random)}
    if kind == 3:
        parts = [
            {"type": "text", "text": text(random)},
            {"type": "image_url", "image_url": {"url": "data:image/png,x"}},
        ]
        return {"role": role, "content": parts[: random.randint(0, 2)]}
    if kind == 4:
        call = {"id": "call_1", "type": "function", "function": {"name": "search", "arguments": '{"q":1}'}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"role": "tool", "tool_call_id": "call_1", "content": text(random), "reasoning_content": text(random)}


def completions(random: Random) -> Body:
    """/v1/completions."""
    prompt: object = text(random, 200)
    if random.random() < 0.2:
        prompt = [random.randrange(300) for _ in range(random.randrange(40))]
    elif random.random() < 0.1:
        prompt = [text(random) for _ in range(random.randrange(3))]
    body: Body = {"model": model(random), "prompt": prompt}
    body |= _openai_options(random)
    if random.random() < 0.1:
        body |= {random.choice(("echo", "suffix", "best_of", "json_schema", "logprobs")): random.choice((True, 2, "x"))}
    return body


def messages(random: Random) -> Body:
    """/v1/messages."""
    body: Body = {"model": model(random), "max_tokens": random.randint(1, 12)}
    body["messages"] = [_anthropic_message(random) for _ in range(_few(random))]
    if random.random() < 0.5:
        block = {"type": "text", "text": text(random), "cache_control": {"type": "ephemeral"}}
        bill = {"type": "text", "text": f"x-anthropic-billing-header: cch={random.randrange(99)}"}
        body["system"] = random.choice((text(random), [block], [bill, block], []))
    if random.random() < 0.5:
        body["stream"] = random.random() < 0.8
    return body | _tools(random, lambda tool: {"name": tool["name"], "input_schema": tool["parameters"]})


def count_tokens(random: Random) -> Body:
    """/v1/messages/count_tokens."""
    body = messages(random)
    del body["max_tokens"]
    return body


def responses(random: Random) -> Body:
    """/v1/responses."""
    given = text(random, 60) if random.random() < 0.3 else [_item(random) for _ in range(_few(random))]
    body: Body = {"model": model(random), "input": given}
    if random.random() < 0.5:
        body["instructions"] = text(random)
    if random.random() < 0.5:
        body["stream"] = random.random() < 0.8
    if random.random() < 0.7:
        body["max_output_tokens"] = random.randint(1, 12)
    if random.random() < 0.05:
        body |= {random.choice(("previous_response_id", "background", "conversation")): random.choice((True, "resp_1"))}
    return body | _tools(random, lambda tool: {"type": "function", **tool})


def workflow(random: Random) -> Body:
    """POST /v1/saga/workflows."""
    count = random.choice((1, 2, 3, 8, 40, 300))
    nodes: list[Body] = [{"id": f"n{number}", "tool": random.choice(_NAMES)} for number in range(count)]
    edges = [{"from": f"n{random.randrange(count)}", "to": f"n{random.randrange(count)}"} for _ in range(count - 1)]
    for edge in edges:
        if random.random() < 0.3:
            edge |= {"probability": random.choice((0.5, 1, 0, 2))}
    body: Body = {"nodes": nodes, "edges": edges}
    if random.random() < 0.5:
        body |= {"id": f"wf-{random.randrange(50)}", "class": random.choice(("coder", "", "a b")), "deadline_s": 60}
    return body


SHAPES: Final[dict[str, Callable[[Random], Body]]] = {
    "/v1/chat/completions": chat,
    "/v1/completions": completions,
    "/v1/responses": responses,
    "/v1/messages": messages,
    "/v1/messages/count_tokens": count_tokens,
    "/v1/saga/workflows": workflow,
}


def _few(random: Random) -> int:
    return random.randint(1, 6) if random.random() < 0.97 else random.choice((0, 60, 300))


def _openai_options(random: Random) -> Body:
    body: Body = {}
    if random.random() < 0.5:
        body["stream"] = random.random() < 0.8
    if random.random() < 0.3:
        body["stream_options"] = random.choice(({"include_usage": True}, {}, None))
    if random.random() < 0.8:
        body[random.choice(("max_tokens", "max_completion_tokens"))] = random.randint(1, 12)
    if random.random() < 0.1:
        body |= random.choice(
            (
                {"n": 2},
                {"logprobs": True},
                {"response_format": {"type": "json_object"}},
                {"continue_final_message": True},
                {"temperature": 0.5, "stop": ["x"], "seed": 1},
                {"min_tokens": 2},
            )
        )
    return body


def _tools(random: Random, shape: Callable[[Body], Body]) -> Body:
    if random.random() < 0.7:
        return {}
    names = random.sample(_NAMES, random.randint(0, len(_NAMES)))
    tools = [
        {"name": name, "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}} for name in names
    ]
    return {"tools": [shape(tool) for tool in tools]}


def _anthropic_message(random: Random) -> Body:
    role = random.choice(("user", "assistant", "user", "system"))
    kind = random.randrange(5)
    if kind < 2:
        return {"role": role, "content": text(random)}
    blocks: list[Body] = [
        {"type": "text", "text": text(random)},
        {"type": "tool_use", "id": "toolu_1", "name": "search", "input": {"q": 1}},
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": text(random)}]},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "thinking", "thinking": text(random), "signature": "s"},
    ]
    return {"role": role, "content": random.sample(blocks, random.randrange(len(blocks)))}


def _item(random: Random) -> Body:
    return random.choice(
        (
            {"role": random.choice(_ROLES), "content": text(random)},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text(random)}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text(random)}]},
            {"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}, {"type": "input_file"}]},
            {"type": "function_call", "call_id": "c1", "name": "search", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": text(random)},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": text(random)}]},
            {"role": "developer", "content": [{"type": "input_text", "text": text(random)}]},
        )
    )
