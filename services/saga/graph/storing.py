"""Models as bytes for JetStream KV: versioned, and small whatever was learnt. Pure."""

from typing import Final

import msgspec

from saga.contract.unreadable import UNREADABLE
from saga.graph.models import Model, ToolModel

MAX_BYTES: Final = 60_000
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Model)


def encode_model(model: Model) -> bytes:
    """For storage. What does not fit is left out: the gaps of edges, then contexts and tools that were seen least."""
    value = _encoder.encode(model)
    share = 1.0
    while len(value) > MAX_BYTES:
        value = _encoder.encode(_pruned(model, share))
        share /= 2
    return value


def _pruned(model: Model, share: float) -> Model:
    """A copy without gaps of edges, and with that share of the contexts, then of the tools, that were seen most."""
    weights = sorted((cell.gaps.total for tool in model.tools.values() for cell in tool.cells.values()), reverse=True)
    least = weights[min(int(len(weights) * share), len(weights) - 1)] if weights else 0
    kept = sorted(model.tools, key=lambda name: -model.tools[name].count)[: max(1, int(2 * share * len(model.tools)))]
    tools = {name: _pruned_tool(follows, least, share) for name, follows in model.tools.items() if name in kept}
    return msgspec.structs.replace(model, tools=tools, cells=sum(len(tool.cells) for tool in tools.values()))


def _pruned_tool(follows: ToolModel, least: int, share: float) -> ToolModel:
    edges = {number: msgspec.structs.replace(edge, gaps=None) for number, edge in follows.next.items()}
    cells = {context: cell for context, cell in follows.cells.items() if share == 1.0 or cell.gaps.total > least}
    return msgspec.structs.replace(follows, next=edges, cells=cells)


def decode_model(value: bytes) -> Model | None:
    """From storage; None for what another version wrote."""
    try:
        return _decoder.decode(value)
    except UNREADABLE:
        return None
