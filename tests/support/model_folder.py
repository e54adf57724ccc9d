"""A model's tokenizer as its publisher ships it: merges, special tokens, a chat template that shows tools and calls.

Trained here on a few sentences, so that nothing has to be fetched. Qwen's way of splitting words; the template is ours,
with what makes real ones hard: JSON of tools, decoded arguments, turns that are shown otherwise once they are past.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE

SPECIALS = ("<|bos|>", "<|eos|>", "<|pad|>", "<|im_start|>", "<|im_end|>", "<|im_end|><|more|>")
WORDS = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TRAINED_ON = (
    "def answer(question): return the file that the agent reads, then write the test and run it again.",
    "Read the file, find the failing test, fix the function, and say what you changed and why.",
    '{"type": "function", "function": {"name": "read_file", "parameters": {"type": "object"}}}',
    "1 2 3 4 5 6 7 8 9 0 für Größe naïve résumé 東京 hello world    and more\n\n\tindented text",
)
TEMPLATE = """\
{%- if tools %}
<|im_start|>system
{%- if messages[0].role == 'system' %}

{{ messages[0].content }}
{%- endif %}

# Tools
{% for tool in tools %}
{{ tool | tojson }}
{% endfor %}
<|im_end|>
{% elif messages[0].role == 'system' %}
<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
{%- if message.role == 'system' and loop.first %}{% continue %}{% endif %}
<|im_start|>{{ message.role }}
{%- if message.reasoning_content is defined and loop.index0 > ns.last %}

<think>{{ message.reasoning_content }}</think>
{%- endif %}

{{ message.content }}
{%- for call in message.tool_calls or [] %}

<call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}
<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think></think>
{% endif %}
{%- endif %}"""


def tokenizer(vocabulary: int = 700, texts=TRAINED_ON, *, bos: bool = False) -> Tokenizer:
    """Trained anew: the same each time."""
    made = Tokenizer(BPE(byte_fallback=False))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(WORDS, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    if bos:
        made.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 0)])
    return made


def write(folder: Path, *, template: str = TEMPLATE, bos: bool = False) -> Path:
    """The files that a gateway reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer(bos=bos).save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 131_072,
        "bos_token": "<|bos|>",
        "eos_token": "<|eos|>",
        "pad_token": "<|pad|>",
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
