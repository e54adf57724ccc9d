"""A request as it is once its prompt is tokens, by the simulated engine's tokenizer."""

import msgspec

from saga.gateway.prompt_tokens import BYTES


def tokenized(asked):
    """The same with its token bytes."""
    return msgspec.structs.replace(asked, token_bytes=BYTES.prompted(asked, None).encoded.token_bytes)
