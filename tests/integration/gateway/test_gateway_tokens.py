"""Prompts in tokens: a model's own tokenizer, what happens when an engine disagrees, and prompts sent as ids."""

import pytest
from model_folder import write

from saga.gateway.config import GatewaySettings
from saga.gateway.prompt_tokens import model_tokenizer
from saga.kv.pages import hash_pages
from saga.kv.tokens import decode_ids, encode_text, render_chat, token_count

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HELLO = [{"role": "user", "content": "Read the file and fix the failing test. " * 10}]


def chat(messages, **more):
    return {"model": "tiny", "messages": messages, "max_tokens": 4} | more


@pytest.fixture
def own(tmp_path):
    """A tokenizer that is not the engines'."""
    folder = write(tmp_path / "model", template=TEMPLATE)
    files = [(folder / name).read_text() for name in ("tokenizer.json", "tokenizer_config.json")]
    return model_tokenizer(*files, None, lambda: 0.0)


async def test_an_engine_that_agrees_is_asked_once_and_believed(start):
    mesh = await start()
    for _ in range(5):
        assert (await mesh.ask(chat(HELLO), "chat", X_Saga_Session="s")).status == 200
    await mesh.until(lambda: mesh.engines[0].tokenized)
    assert [body["messages"] for body in mesh.engines[0].tokenized] == [HELLO]
    assert all(step.pages_known for step in mesh.leaders.steps)


async def test_other_counts_take_page_hashes_out_of_placement(start, own):
    mesh = await start(tokenizers={"tiny": own})
    engines = token_count(encode_text(render_chat(HELLO)))
    for number in range(4):
        assert (await mesh.ask(chat(HELLO), "chat", X_Saga_Session=f"s{number}")).status == 200
    first, last = mesh.leaders.steps[0], mesh.leaders.steps[-1]
    assert first.pages_known
    assert first.new_hashes
    assert first.prompt_tokens < engines
    assert not last.pages_known
    assert last.new_hashes == b""
    assert abs(last.prompt_tokens - engines) <= 1


async def test_the_same_count_of_other_tokens_is_noticed(start):
    mesh = await start()
    mesh.engines[0].tokens = [5] * token_count(encode_text(render_chat(HELLO)))
    assert (await mesh.ask(chat(HELLO), "chat", X_Saga_Session="s")).status == 200
    await mesh.until(lambda: mesh.engines[0].tokenized)

    async def unknown():
        await mesh.ask(chat(HELLO), "chat", X_Saga_Session="s")
        return not mesh.leaders.steps[-1].pages_known

    assert await unknown() or await unknown()


async def test_a_gateway_that_renders_sends_ids_beside_the_messages(start, own):
    mesh = await start(tokenizers={"*": own}, tokenization="gateway")
    for _ in range(4):
        assert (await mesh.ask(chat(HELLO), "chat", X_Saga_Session="s")).status == 200
    body, step = mesh.engines[0].bodies[-1], mesh.leaders.steps[-1]
    assert body["messages"] == HELLO
    assert step.prompt_tokens == len(body["input_ids"])
    assert step.pages_known
    ids = own.vocabulary.encode(f"<|im_start|>user\n{HELLO[0]['content']}<|im_end|>\n<|im_start|>assistant\n")
    assert body["input_ids"] == decode_ids(ids.token_bytes)
    assert mesh.leaders.steps[0].new_hashes == hash_pages(ids.token_bytes, step.page_tokens)


async def test_text_is_sent_as_ids_too_and_goes_on_as_ids(start, own):
    mesh = await start(engines=2, tokenizers={"*": own}, tokenization="gateway")
    mesh.engines[0].die_after = 3
    body = {"model": "tiny", "prompt": "hello", "max_tokens": 8, "stream": True}
    answer = await (await mesh.ask(body)).read()
    first, second = mesh.engines[0].bodies[0], mesh.engines[1].bodies[0]
    said = mesh.text_of(answer)[:3]
    assert first["prompt"] == decode_ids(own.words("hello"))
    assert second["prompt"] == f"hello{said}"
    assert second["max_tokens"] == 8 - token_count(own.words(said))


async def test_an_answer_goes_on_by_the_engines_count_where_the_tokenizer_is_unknown(start):
    mesh = await start(engines=2)
    for engine in mesh.engines:
        engine.tokens = [5]
    await mesh.ask(chat(HELLO), "chat", X_Saga_Session="s")
    await mesh.until(lambda: mesh.engines[0].tokenized)
    mesh.engines[0].die_after = 3
    answer = await mesh.ask(chat(HELLO, stream=True, max_tokens=9), "chat", X_Saga_Session="s")
    assert len(mesh.text_of(await answer.read())) >= 9
    again = mesh.engines[1].bodies[-1]
    assert 0 < again["max_tokens"] < 9


def test_the_setting_names_models_and_folders():
    settings = GatewaySettings(tokenizers=" a=/m/a , *=/m/b ")
    assert {name: str(folder) for name, folder in settings.tokenizer_folders().items()} == {"a": "/m/a", "*": "/m/b"}
    with pytest.raises(ValueError, match="'a' must be MODEL=FOLDER"):
        GatewaySettings(tokenizers="a")
