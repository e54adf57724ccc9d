"""A request's prompt through its model's own template; tests/real_sglang/test_tokens.py compares with a server's."""

import json

import pytest
from model_folder import TEMPLATE, tokenizer

from saga.gateway.chat_template import BadTemplateError, ChatTemplate, RenderError
from saga.gateway.dialects.dialect import understood
from saga.gateway.dialects.table import DIALECTS
from saga.gateway.prompt_tokens import model_tokenizer
from saga.kv.tokens import decode_ids

VOCABULARY = tokenizer()
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"path": "a"}'}}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Look at"}, {"type": "text", "text": "a."}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {
        "role": "tool",
        "tool_call_id": "c1",
        "content": [{"type": "text", "text": "it is"}, {"type": "text", "text": "b"}],
    },
]


def made(template=TEMPLATE, config=None):
    config = json.dumps(config if config is not None else {"bos_token": "<|bos|>", "chat_template": template})
    return model_tokenizer(VOCABULARY.to_str(), config, None, lambda: 1_790_000_000.0)


def asked(api="chat", **fields):
    body = {"model": "m", "messages": TALK} if api == "chat" else {"model": "m"}
    return understood(DIALECTS[api], json.dumps(body | fields).encode())


def text_of(prompted):
    return VOCABULARY.decode(decode_ids(prompted.encoded.token_bytes), skip_special_tokens=False)


def test_tools_and_calls_stand_in_the_prompt_as_the_template_wants_them():
    prompted = made().prompted(asked(tools=[TOOL]), None)
    text = text_of(prompted)
    assert prompted.exact
    assert '{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters"' in text
    assert '<call>{"name": "look", "arguments": {"path": "a"}}</call>' in text
    assert "user\nLook at a.<|im_end|>" in text
    assert "tool\nit is b<|im_end|>" in text
    assert text.endswith("<|im_start|>assistant\n")


def test_the_same_chat_through_the_messages_api_is_the_same_prompt():
    messages = [
        {"role": "user", "content": "Look at a."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "look", "input": {"path": "a"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "it is b"}]},
    ]
    tool = {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}
    ours = made().prompted(asked("messages", max_tokens=5, system="Be brief.", messages=messages, tools=[tool]), None)
    as_chat = TOOL | {"function": TOOL["function"] | {"strict": False}}  # which SGLang's model of this API adds
    assert ours.encoded.token_bytes == made().prompted(asked(tools=[as_chat]), None).encoded.token_bytes


def test_the_same_chat_through_the_responses_api_is_the_same_prompt():
    items = [
        {"role": "user", "content": "Look at a."},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"path": "a"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "it is b"},
    ]
    tool = {"type": "function", **TOOL["function"]}
    ours = made().prompted(asked("responses", instructions="Be brief.", input=items, tools=[tool]), None)
    as_chat = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}, "strict": False}
    in_chat = made().prompted(asked(tools=[{"type": "function", "function": as_chat}]), None)
    assert ours.encoded.token_bytes == in_chat.encoded.token_bytes


def test_options_of_the_template_reach_it():
    assert text_of(made().prompted(asked(chat_template_kwargs={"enable_thinking": False}), None)).endswith("</think>\n")
    assert text_of(made().prompted(asked(reasoning_effort="none"), None)).endswith("</think>\n")
    assert not text_of(made().prompted(asked(tools=[TOOL], tool_choice="none"), None)).count("# Tools")


def test_an_answer_that_the_client_began_is_left_open():
    began = [*TALK, {"role": "assistant", "content": "It is"}]
    assert text_of(made().prompted(asked(messages=began, continue_final_message=True), None)).endswith(
        "<|im_start|>assistant\nIt is"
    )
    assert "<|im_start|>user\nIt is<|im_end|>" in text_of(made().prompted(asked(messages=began), None))


def test_parts_that_are_no_text_leave_the_length_open():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    assert not made().prompted(asked(messages=[{"role": "user", "content": [image]}]), None).exact


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('no system') }}", "{{ messages[9].content.x }}", "{{ 1 / 0 }}", ""]
)
def test_a_chat_that_the_template_refuses_is_left_to_the_engine(template):
    prompted = made(template).prompted(asked(), None)
    assert prompted.unknown
    assert not prompted.exact
    assert prompted.encoded.token_bytes


@pytest.mark.parametrize("arguments", ["[" * 5_000 + "]" * 5_000, "{", "7"], ids=["deep", "no JSON", "a number"])
def test_whatever_a_call_was_given_is_the_engines_to_refuse(arguments):
    call = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": arguments}}]}
    assert made().prompted(asked(messages=[*TALK, call]), None).encoded.token_bytes


def test_text_and_ids_need_no_template():
    assert text_of(made().prompted(asked("completions", prompt="hello"), None)) == "hello"
    assert made().prompted(asked("completions", prompt=[5, 6]), None).encoded.token_bytes == b"\5\0\0\0\6\0\0\0"


def test_a_template_is_kept_in_its_sandbox():
    template = ChatTemplate("{{ messages.__class__.__mro__ }}{{ messages.append(1) }}", {}, lambda: 0.0)
    with pytest.raises(RenderError):
        template.render([], None, {})


def test_templates_may_tell_the_date_and_name_their_specials():
    template = ChatTemplate("{{ bos_token }}{{ strftime_now('%Y-%m') }}", {"bos_token": "<s>"}, lambda: 86_400.0)
    assert template.render([], None, {}) == "<s>1970-01"


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("{% for message in messages %}{{ message.content }}{% endfor %}", "string"),
        ("{% for m in messages %}{% for part in m['content'] %}{{ part.text }}{% endfor %}{% endfor %}", "parts"),
        ("{% for message in messages %}{% for p in message.content | list %}{% endfor %}{% endfor %}", "parts"),
        ("{# <image> #}", "parts"),
    ],
)
def test_a_template_says_by_itself_whether_it_wants_parts(template, form):
    assert ChatTemplate(template, {}, lambda: 0.0).content_form == form


def test_several_templates_the_default_one_counts():
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    assert text_of(made(config={"chat_template": named}).prompted(asked(), None)) == "yes"


def test_a_broken_template_is_named_with_its_line():
    with pytest.raises(BadTemplateError, match="line 2"):
        made("a\n{% if %}")
