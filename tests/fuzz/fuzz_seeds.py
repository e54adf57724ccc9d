"""Valid inputs of every parser at the edge beside HTTP, small, to be broken by `fuzz_bytes`."""

import json
import sys
import zlib
from pathlib import Path
from typing import Final

import msgspec
from model_folder import TEMPLATE, tokenizer

from saga.admission.making import Making
from saga.admission.records import SavedSession, SavedWorkflow
from saga.contract.ids import PoolId, RootId, SessionId, TenantId, WorkerId
from saga.contract.messages import MESSAGE_TYPES, decode
from saga.contract.tenants import NO_TERMS, KeyRow, TenantTerms, write_row
from saga.graph.models import Model
from saga.graph.sketch import bucket_of
from saga.graph.storing import encode_model
from saga.kernel.effects import Received
from saga.kernel.record import add_entry, header_frame
from saga.load.traces import mooncake, recorded, tracelab, trie
from saga.load.traces.session import Session, Step, SubAgent
from saga.worker.journal import encode_record
from saga.worker.tags import TagRecord

sys.path.append(str(Path(__file__).parents[2] / "plugins" / "sglang"))  # it is installed beside SGLang, not here
from saga_sglang import ring

RING_RECORDS: Final = 16
GOLDEN: Final = Path(__file__).parents[1] / "unit" / "contract" / "golden.json"


def bus_messages() -> list[bytes]:
    """One of every kind, with all its fields."""
    golden: dict[str, str] = json.loads(GOLDEN.read_text())
    return [bytes.fromhex(golden[kind.__name__]) for kind in MESSAGE_TYPES]


def kv_events() -> list[bytes]:
    """Batches as SGLang publishes them."""
    stored = {
        "type": "BlockStored",
        "block_hashes": [1, -(2**63), 2**63 - 1, 77],
        "parent_block_hash": 5,
        "token_ids": list(range(64)),
        "block_size": 16,
        "lora_id": None,
        "medium": "GPU",
        "session_id": "acme/fix~1",
    }
    removed = {"type": "BlockRemoved", "block_hashes": [1, 2], "medium": "CPU"}
    batches = [
        [1e9, [stored, removed, {"type": "AllBlocksCleared"}], 0],
        [1e9, [stored] * 8],
        [0.0, [{**removed, "medium": None}]],
        [1.5, []],
    ]
    return [msgspec.msgpack.encode(batch) for batch in batches]


def tenant_rows() -> list[bytes]:
    """No terms, and all of them."""
    full = TenantTerms(
        weight=2.5, active_workflows=4, running_steps=8, waiting_steps=0, kv_tokens=10**6, input_tokens_per_minute=10**5
    )
    return [write_row(NO_TERMS), write_row(full)]


def key_rows() -> list[bytes]:
    """A key with the least and with all that is said of one."""
    row = write_row(KeyRow(sha256="ab" * 32, tenant=TenantId("acme")))
    return [row, msgspec.json.encode({**msgspec.json.decode(row), "made_at": 3.5, "note": "ci"})]


def workflow_rows() -> list[bytes]:
    """Workflows as a leader keeps them."""
    sessions = tuple(
        SavedSession(SessionId(f"acme/s{n}"), SessionId("acme/s0" if n else ""), WorkerId("w0"), 900 * n)
        for n in range(3)
    )
    saved = SavedWorkflow(RootId("acme/w"), TenantId("acme"), PoolId("m"), 1e9, 60.0, 1.5, sessions)
    return [msgspec.msgpack.encode(saved)]


def graph_models() -> list[bytes]:
    """Models that learnt nothing, and a few steps."""
    model = Model("class/acme/coder")
    for step in range(1, 40):
        follows = model.tool(("bash", "edit", "")[step % 3])
        model.saw_outcome(follows, step, step % 5, bucket_of(0.1 * step), ended=step % 7 == 0)
        follows.edge(step % 3).count += 1
        follows.growth_tokens.add(100.0 * step)
    return [encode_model(Model("tenant/acme")), encode_model(model)]


def journals() -> list[bytes]:
    """What a worker agent left."""
    lines = [b"+" + encode_record(TagRecord(f"acme/s{n}~1", SessionId(f"acme/s{n}"))) for n in range(6)]  # type: ignore[arg-type]
    return [b"\n".join([*lines, b"-acme/s2~1", b"-acme/s9~1", b""])]


def recordings() -> list[bytes]:
    """An admission core's making and what it heard."""
    making = Making(
        cell="c", policy="saga", wall_offset_s=1e9, max_waiting_steps=100, max_wait_s=60.0, weights={"acme": 2.0}
    )
    frames = bytearray(header_frame("admission", "admission-1", making))
    for number, message in enumerate(bus_messages()[:24]):
        add_entry(frames, 0.5 * number, Received(decode(message)), [])
    return [bytes(frames)]


def rings() -> list[bytes]:
    """The plugin's channel: new, and written more than once around."""
    data = bytearray(ring.HEADER_BYTES + RING_RECORDS * ring.RECORD.size)
    data[: ring.HEADER_BYTES] = ring.empty(RING_RECORDS)[: ring.HEADER_BYTES]
    new = bytes(data)
    for number in range(1, RING_RECORDS + 4):
        tag, value = f"acme/s{number}~1".encode(), 0.25 * number
        padded = tag.ljust(ring.TAG_BYTES, b"\0")
        checksum = zlib.crc32(ring.BODY.pack(number, value, padded))
        record = ring.RECORD.pack(number, value, checksum, len(tag), padded)
        at = ring.HEADER_BYTES + (number - 1) % RING_RECORDS * ring.RECORD.size
        data[at : at + ring.RECORD.size] = record
    return [new, bytes(data)]


def traces() -> dict[str, list[bytes]]:
    """The same sessions in every format that is read."""
    steps = (
        Step("main", 0.0, 640, 30, ((0, 10),), "tool_use", api_s=1.0, model="m"),
        Step("main", 2.0, 704, 30, ((0, 11),), "tool_use", gap_s=1.0),
        Step("agent-1", 2.5, 128, 30, ((20, 2),), "end_turn"),
        Step("main", 6.0, 1024, 30, ((0, 11), (30, 5)), "end_turn", gap_s=3.0),
    )
    sessions = [
        Session(f"s{n}", 64, steps, 100, 200, (SubAgent("agent-1", 2.5, 10, 20),), origin_s=5.0 * n) for n in range(3)
    ]
    writers = {"recorded": recorded, "mooncake": mooncake, "tracelab": tracelab, "trie": trie}
    made = {name: ["\n".join(writer.write(sessions).lines).encode()] for name, writer in writers.items()}
    words = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    turn = {"messages": words, "max_tokens": 64, "delay": 250.0, "tools": [{"name": "bash"}]}
    parent = {**turn, "forks": ["b"], "spawns": ["c", {"children": ["d"], "join_at": 1}]}
    dag = [{"session_id": "a", "turns": [parent, turn, turn], "pre_session_spawns": ["e"]}]
    dag += [{"session_id": name, "turns": [turn]} for name in "bcdef"]
    made["dag"] = [b"\n".join(map(msgspec.json.encode, dag))]
    return made


def model_files() -> list[bytes]:
    """tokenizer.json, tokenizer_config.json, chat template: one after another, each on a line of its own."""
    config = json.dumps({"bos_token": "<|bos|>", "eos_token": {"content": "<|eos|>"}, "chat_template": TEMPLATE})
    return [b"\n".join((tokenizer(300).to_str().encode(), config.encode()))]
