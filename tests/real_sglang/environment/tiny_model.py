"""Writes a model that is small enough for SGLang on a CPU: a Qwen2 of two layers whose weights SGLang makes up itself.

Its tokenizer knows bytes and five specials, with the ids that `saga.kv.tokens` has. Run by build.py with the Python of
the environment: `python tiny_model.py FOLDER`.
"""

import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

CONTEXT_TOKENS = 131_072
SPECIALS = {"bos": "<|bos|>", "eos": "<|eos|>", "pad": "<|pad|>", "im_start": "<|im_start|>", "im_end": "<|im_end|>"}
IDS = {f"{name}_token_id": number for number, name in enumerate(SPECIALS) if name in {"bos", "eos", "pad"}}
TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""


def tokenizer() -> Tokenizer:
    """Bytes without merges: one token per byte, in the order of their printable stand-ins, after the specials."""
    names = [*SPECIALS.values(), *sorted(ByteLevel.alphabet())]
    made = Tokenizer(BPE(vocab={name: number for number, name in enumerate(names)}, merges=[]))
    made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(name, special=True) for name in SPECIALS.values()])
    return made


def config() -> dict[str, object]:
    """The smallest Qwen2 that every code path accepts."""
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "attention_dropout": 0.0, "use_sliding_window": False}
    words = {"vocab_size": 320, "max_position_embeddings": CONTEXT_TOKENS, "tie_word_embeddings": False}
    numbers = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1e4, "initializer_range": 0.02}
    kind = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16"}
    return {**kind, **shape, **heads, **words, **numbers, **IDS}


def main(folder: Path) -> None:
    """Write the four files that a model consists of, but for weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer().save(str(folder / "tokenizer.json"))
    said = {f"{name}_token": SPECIALS[name] for name in ("bos", "eos", "pad")}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT_TOKENS, "chat_template": TEMPLATE}
    for name, content in (
        ("config", config()),
        ("generation_config", IDS),
        ("tokenizer_config", {**kind, **said}),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
