"""What a dense transformer's shape says about its cost: parameters, bytes and FLOPs per token.

Arithmetic on a published `config.json`, no measurement. Called by `measurements`, for profiles of measured servers.
"""

import msgspec
from msgspec import Struct

BYTES_PER_WEIGHT = 2  # FP16 or BF16
DENSE = ("llama", "mistral", "qwen2", "qwen3")  # attention with grouped heads, gated MLP of three matrices


class ShapeError(ValueError):
    """A model whose cost does not follow from these few numbers."""


class ModelShape(Struct, frozen=True):
    """The fields of `config.json` that cost follows from, by their names there."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int
    max_position_embeddings: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    tie_word_embeddings: bool = False

    @property
    def kv_heads(self) -> int:
        """Heads of K and of V."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        """Numbers in a head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def parameters(self) -> int:
        """All of them; biases and norms beside the layers' two are left out."""
        attention = 2 * self.hidden_size * self.head_size * (self.num_attention_heads + self.kv_heads)
        mlp = 3 * self.hidden_size * self.intermediate_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return embeddings + self.num_hidden_layers * (attention + mlp + 2 * self.hidden_size) + self.hidden_size

    @property
    def weight_bytes(self) -> int:
        """Of all parameters, two bytes each."""
        return BYTES_PER_WEIGHT * self.parameters

    @property
    def flops_per_token(self) -> int:
        """A multiplication and an addition with each parameter."""
        return 2 * self.parameters

    @property
    def attention_flops_per_pair(self) -> int:
        """Score and weighted sum of one (token, earlier token) pair, in all heads and layers."""
        return 4 * self.num_hidden_layers * self.num_attention_heads * self.head_size

    def kv_bytes_per_token(self, element_bytes: int, tensor_parallel: int) -> int:
        """K and V of one token on all GPUs together; heads that are fewer than GPUs are held more than once."""
        held = max(self.kv_heads, tensor_parallel)
        return 2 * self.num_hidden_layers * held * self.head_size * element_bytes


def shape_of(config: bytes) -> ModelShape:
    """The shape in a `config.json`. Raises ShapeError with what is missing, or for a model that is not dense."""
    try:
        shape = msgspec.json.decode(config, type=ModelShape)
    except msgspec.DecodeError as error:
        raise ShapeError(f"config.json: {error}") from None
    if shape.model_type not in DENSE:
        raise ShapeError(f"config.json: model_type {shape.model_type!r} is none of {', '.join(DENSE)}")
    return shape
