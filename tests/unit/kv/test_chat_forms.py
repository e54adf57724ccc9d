"""The chats that SGLang makes of other APIs; tests/real_sglang/test_client_apis.py compares lengths with a server."""

import msgspec

from saga.kv.chat_forms import Block, Item, Message, mark, of_messages, of_responses, readable
from saga.kv.tokens import render_chat


def messages(*given, system=None):
    return of_messages(system, msgspec.convert(list(given), list[Message]))


def responses(*given, instructions=None):
    return of_responses(instructions, msgspec.convert(list(given), list[Item]))


def text(words):
    return {"type": "text", "text": words}


def test_a_system_prompt_in_blocks_is_one_message():
    system = msgspec.convert([text("A"), text(""), text("B") | {"cache_control": {"type": "ephemeral"}}], list[Block])
    assert messages({"role": "user", "content": "Q"}, system=system) == [
        {"role": "system", "content": "A\nB"},
        {"role": "user", "content": "Q"},
    ]
    assert messages({"role": "user", "content": "Q"}, system="  ") == [{"role": "user", "content": "Q"}]


def test_results_of_tools_stand_where_they_stood():
    result = {"type": "tool_result", "tool_use_id": "t", "content": [text("R1"), text("R2")]}
    used = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
    chat = messages(
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, text("I look."), used]},
        {"role": "user", "content": [text("before"), result, text("after")]},
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [result | {"content": "plain"}]},
    )
    assert [message["role"] for message in chat] == ["assistant", "user", "tool", "user", "assistant", "tool"]
    assert [message["content"] for message in chat[:2]] == ["I look.", "before"]
    assert chat[2]["content"] == [text("R1"), text("R2")]
    assert (chat[3]["content"], chat[4]["content"], chat[5]["content"]) == ("after", None, "plain")
    render_chat(chat)


def test_system_messages_stay_where_they_are():
    chat = messages({"role": "user", "content": "Q"}, {"role": "system", "content": "S"})
    assert [message["role"] for message in chat] == ["user", "system"]
    chat = responses({"role": "developer", "content": "D"}, {"role": "user", "content": "Q"}, instructions="I")
    assert [message["content"] for message in chat] == ["I", "Developer instructions:\nD", "Q"]


def test_a_turn_in_several_items_is_one_message():
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A"}]}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    output = {"type": "function_call_output", "call_id": "c", "output": "R"}
    chat = responses({"role": "user", "content": "Q"}, thought, said, call, call, output)
    assert [message["role"] for message in chat] == ["user", "assistant", "tool"]
    assert chat[1]["content"] == [text("A")]
    assert [message["role"] for message in responses(said | {"phase": "commentary"}, call)] == ["assistant"] * 2
    assert responses({"type": "reasoning", "summary": []}, {"role": "user", "content": "Q"})[0]["role"] == "user"


def test_a_string_is_a_question():
    assert of_responses(None, "Q") == [{"role": "user", "content": "Q"}]


def test_what_is_no_text_leaves_a_mark_of_its_content():
    def image(data):
        return {"type": "image_url", "image_url": {"url": data}}

    one, other = (readable([{"role": "user", "content": [text("x"), image(data)]}]) for data in ("a", "b"))
    assert one != other
    assert one[0]["content"][1]["text"] == mark(image("a"))
    assert render_chat(one).count("[part ") == 1
    source = {"type": "image", "source": {"type": "base64", "data": "AAAA"}}
    chat = messages({"role": "user", "content": [source, {"type": "tool_result", "content": [source]}]})
    assert all("[part " in str(message["content"]) for message in chat)
