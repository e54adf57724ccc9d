"""Whether an answer may go on after its engine died. How it does is the API's business: `dialects/dialect.py`. Pure.

Nothing but the beginning sent: the original request again. Plain text, where the API can go on with it: the prompt with
the text that was sent. Anything else cannot be continued, and the client is told to ask again.
"""

from saga.gateway.dialects.dialect import Asked, Changes, Dialect
from saga.gateway.dialects.prompt import IdsPrompt
from saga.gateway.transcript import Transcript


def why_not(dialect: Dialect, asked: Asked, sent: Transcript) -> str:
    """Why the answer cannot go on; empty: it can."""
    if not sent.begun:
        return ""
    if dialect.continued is None:
        return "this API cannot go on with text"
    if isinstance(asked.source, IdsPrompt) and sent.text_token_bytes is None:
        return "the prompt is token ids, and the model's tokenizer is not known here"
    return asked.fixed_because or sent.unreadable_because()


def changes(dialect: Dialect, asked: Asked, sent: Transcript) -> Changes:
    """The fields in which the continuing request differs from the original; none when nothing was sent."""
    return dialect.continued(asked, sent) if sent.begun and dialect.continued is not None else {}


def complete(dialect: Dialect, asked: Asked, sent: Transcript) -> bool:
    """Whether the engine died after its last token: then only the end of the stream is missing."""
    if asked.choices > 1:
        return False
    if sent.finish_reason is not None or not dialect.owes_end:
        return sent.finish_reason is not None
    return asked.max_tokens is not None and sent.begun and not sent.overflowed and sent.text_tokens >= asked.max_tokens
