"""A model's own tokenizer and template over a real server: `/v1/tokenize` and usage say what the gateway computes."""

import json
import shutil

import msgspec
import pytest
import pytest_asyncio
from model_folder import write
from sglang_server import ENVIRONMENT, MODEL, SglangServer, settings

from saga.cli.sglang import ports_for
from saga.gateway.dialects.dialect import understood
from saga.gateway.dialects.table import DIALECTS
from saga.gateway.prompt_tokens import model_tokenizer
from saga.kv.tokens import decode_ids, token_count

pytestmark = pytest.mark.asyncio(loop_scope="module")
module_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")
LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks at a <file> & more.",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    },
}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"path": "a b", "deep": [1, 2.5]}'}}
SYSTEM = {"role": "system", "content": "Be brief. Größe, 東京, naïve."}
USER = {"role": "user", "content": "What is in  README.md?\n\n  It's 100 lines."}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "name": "look", "content": [{"type": "text", "text": "one"}] * 2}
THOUGHT = {"role": "assistant", "content": "It is a test.", "reasoning_content": "I think."}
CHATS = {
    "plain": {"messages": [USER]},
    "system": {"messages": [SYSTEM, USER]},
    "parts": {"messages": [SYSTEM, {"role": "user", "content": [{"type": "text", "text": t} for t in ("a", "b ")]}]},
    "tools": {"messages": [SYSTEM, USER], "tools": [LOOK]},
    "strict tools": {"messages": [USER], "tools": [LOOK | {"function": LOOK["function"] | {"strict": True}}]},
    "no tools wanted": {"messages": [SYSTEM, USER], "tools": [LOOK], "tool_choice": "none"},
    "one tool wanted": {
        "messages": [USER],
        "tools": [LOOK, {"type": "function", "function": {"name": "f"}}],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
    },
    "calls and results": {"messages": [SYSTEM, USER, CALLED, RESULT], "tools": [LOOK]},
    "reasoning": {"messages": [USER, THOUGHT, USER]},
    "reasoning, not past": {"messages": [USER, CALLED | {"reasoning_content": "Hm."}, RESULT], "tools": [LOOK]},
    "not thinking": {"messages": [USER], "chat_template_kwargs": {"enable_thinking": False}},
    "effort": {"messages": [USER], "reasoning_effort": "none"},
    "the assistant last": {"messages": [SYSTEM, USER, THOUGHT]},
    "gone on with": {"messages": [USER, {"role": "assistant", "content": "It is"}], "continue_final_message": True},
    "specials written out": {"messages": [{"role": "user", "content": "<|im_end|>\n<|im_start|>system\nhi<|eos|>"}]},
    "empty": {"messages": [{"role": "user", "content": ""}]},
}
PROMPTS = ["hello", "Read the file.\n\n\tThen  write 東京 <|im_start|>user", "e\u0301 é"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tiny model's weights, as it were, with a tokenizer that merges and a template that shows tools."""
    folder = write(tmp_path_factory.mktemp("model"), bos=True)
    shutil.copy(MODEL / "generation_config.json", folder)
    config = json.loads((MODEL / "config.json").read_text()) | {"vocab_size": 1_024}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@module_fixture
async def server(folder, tmp_path_factory):
    assert ENVIRONMENT.is_dir()
    model = msgspec.structs.replace(settings(kv_tokens=8_192), model=str(folder))
    async with SglangServer(model, ports_for(1)[0], tmp_path_factory.mktemp("sglang")) as server:
        yield server


@pytest.fixture(scope="module")
def tokenizer(folder):
    files = [(folder / name).read_text() for name in ("tokenizer.json", "tokenizer_config.json")]
    return model_tokenizer(*files, None, lambda: 0.0)


def prompted(tokenizer, api, body):
    asked = understood(DIALECTS[api], json.dumps({"model": "m"} | body).encode())
    return tokenizer.prompted(asked, None)


async def test_every_chat_has_the_tokens_that_the_server_gives_it(server, tokenizer):
    differs = {}
    for name, body in CHATS.items():
        status, told = await server.post("/v1/tokenize", body)
        assert status == 200, (name, told)
        ours = prompted(tokenizer, "chat", body)
        assert ours.exact, name
        if decode_ids(ours.encoded.token_bytes) != told["tokens"]:
            differs[name] = (len(told["tokens"]), token_count(ours.encoded.token_bytes))
    assert differs == {}


async def test_text_has_the_tokens_that_the_server_gives_it(server, tokenizer):
    for prompt in PROMPTS:
        _, told = await server.post("/v1/tokenize", {"prompt": prompt})
        assert decode_ids(prompted(tokenizer, "completions", {"prompt": prompt}).encoded.token_bytes) == told["tokens"]


async def test_a_chat_sent_as_ids_is_counted_as_such(server, tokenizer):
    body = CHATS["calls and results"] | {"model": "m", "max_tokens": 2}
    ids = decode_ids(prompted(tokenizer, "chat", body).encoded.token_bytes)
    for sent in (body, body | {"input_ids": ids}):
        status, answer = await server.post("/v1/chat/completions", sent)
        assert status == 200, answer
        assert answer["usage"]["prompt_tokens"] == len(ids)


async def test_the_messages_api_makes_the_same_prompt_of_calls_and_results(server, tokenizer):
    body = {
        "max_tokens": 2,
        "system": "Be brief.",
        "tools": [{"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": "Look at a."},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "I do."},
                    {"type": "tool_use", "id": "t1", "name": "look", "input": {"path": "a"}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "it is b"}]},
        ],
    }
    status, answer = await server.post("/v1/messages", body | {"model": "m"})
    assert status == 200, answer
    usage = answer["usage"]
    counted = usage["input_tokens"] + (usage.get("cache_read_input_tokens") or 0)
    assert counted == token_count(prompted(tokenizer, "messages", body).encoded.token_bytes)


async def test_the_responses_api_does_too(server, tokenizer):
    body = {
        "max_output_tokens": 8,
        "instructions": "Be brief.",
        "tools": [{"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object"}}],
        "input": [
            {"role": "user", "content": "Look at a."},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"path": "a"}'},
            {"type": "function_call_output", "call_id": "c1", "output": "it is b"},
            {"role": "user", "content": [{"type": "input_text", "text": "Now?"}]},
        ],
        "store": False,
    }
    model = (await server.get("/v1/models"))["data"][0]["id"]
    status, answer = await server.post("/v1/responses", body | {"model": model})
    assert status == 200, answer
    assert answer["usage"]["input_tokens"] == token_count(prompted(tokenizer, "responses", body).encoded.token_bytes)
