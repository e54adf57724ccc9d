"""The body as an engine gets it: the client's own, without the fields by which an engine is controlled. Pure.

A client must not choose request ids, priorities, cache namespaces or placement: ours are the only ones that count.
The list follows the request models of the pinned SGLang.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from saga.gateway.dialects.dialect import RawBody

CONTROL_FIELDS: Final = frozenset(
    {
        "bootstrap_host",
        "bootstrap_pair_key",
        "bootstrap_port",
        "bootstrap_room",
        "cache_salt",
        "conversation_id",
        "custom_labels",
        "custom_logit_processor",
        "custom_params",
        "data_parallel_rank",
        "disagg_prefill_dp_rank",
        "external_trace_header",
        "extra_key",
        "input_embeds",
        "input_ids",
        "kv_hints",
        "lora_id",
        "lora_path",
        "ngram_corpus_id",
        "no_logs",
        "priority",
        "prompt_cache_key",
        "return_hidden_states",
        "return_routed_experts",
        "request_id",
        "rid",
        "routed_dp_rank",
        "routed_experts_start_len",
        "routing_key",
        "session_id",
        "session_params",
    }
)

_encoder = msgspec.json.Encoder()


def engine_body(
    raw: RawBody,
    *,
    rid_field: str,
    rid: str,
    session_tag: str,
    priority: int,
    cache_salt: str,
    changes: Mapping[str, object],
) -> bytes:
    """JSON for the engine. `changes` replace or add fields; a None removes one. `rid_field`: its name for `rid`."""
    fields: dict[str, object] = {
        name: value for name, value in raw.items() if name not in CONTROL_FIELDS and name not in changes
    }
    fields[rid_field] = rid
    fields["priority"] = priority
    if session_tag:
        fields["session_id"] = session_tag
    if cache_salt:
        fields["cache_salt"] = cache_salt
    fields |= {name: value for name, value in changes.items() if value is not None}
    return _encoder.encode(fields)
