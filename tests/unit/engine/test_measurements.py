"""A file of measurements is whole or refused; settings become the iterations that the engine would make."""

import json
from statistics import median

import msgspec
import pytest
from measured import times

from saga.engine.measurements import (
    DecodeTime,
    End,
    Facts,
    Failure,
    Hardware,
    MeasurementError,
    PrefillTime,
    base_profile,
    points,
    read,
)
from saga.engine.model_shape import ShapeError, shape_of
from saga.engine.profile import load_profile
from saga.sim.clusters import check_physical

LLAMA3_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
    "rope_theta": 500_000.0,
}
SHAPE = shape_of(json.dumps(LLAMA3_8B).encode())
FACTS = Facts(
    sglang="0.5.23",
    model="llama3-8b",
    gpu="NVIDIA H100 80GB HBM3",
    gpus=1,
    gpu_bytes=85_520_809_984,
    kv_tokens=400_010,
    context_tokens=131_072,
    page_tokens=64,
    chunk_tokens=8_192,
    max_running=256,
    tensor_parallel=1,
    kv_element_bytes=2,
    attention="fa3",
    shape=SHAPE,
)
HARDWARE = Hardware(9.89e14, 3.35e12, 80e9)


def text(*lines) -> bytes:
    """A file."""
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def test_a_whole_file_is_read_back():
    made = times(load_profile("h100x1-llama3-8b"))
    found = read(text(FACTS, *made, End(len(made), ("decode of 128 x 8,192: no room",))))
    assert (found.facts, found.times, found.left_out) == (FACTS, tuple(made), ("decode of 128 x 8,192: no room",))


ONE = PrefillTime(64, 0, 0.01)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (text(FACTS), "breaks off after 0 times"),
        (text(FACTS, ONE), "breaks off after 1 times"),
        (text(FACTS, ONE)[:-10], "line 2 is no measurement"),
        (text(FACTS, ONE, End(2)), "2 times were measured and 1 are here"),
        (text(FACTS, ONE, End(1), ONE), "1 lines after the last one"),
        (text(ONE, End(1)), "no line of facts"),
        (text(FACTS, FACTS), "line 2: a second line of facts"),
        (text(FACTS, ONE, Failure("decode of 2 x 128", "answered 500")), "line 3: decode of 2 x 128 failed: answered"),
        (text(FACTS) + b'{"kind":"prefill","prompt_tokens":64,"cached_tokens":0,"seconds":0}\n', "line 2 .*seconds"),
        (text(FACTS) + b'{"kind":"prefill","prompt_tokens":64,"seconds":1}\n', "line 2 .*cached_tokens"),
        (b"not JSON\n", "line 1 is no measurement"),
        (text(FACTS) + b"\xff\xfe\n", "line 2 is no measurement"),
    ],
)
def test_all_else_is_refused_with_its_line(content, said):
    with pytest.raises(MeasurementError, match=said):
        read(content)


@pytest.mark.parametrize(
    ("missing", "said"), [(DecodeTime, "0 different decode"), (PrefillTime, "0 different prefill")]
)
def test_a_missing_group_is_named(missing, said):
    made = [time for time in times(load_profile("h100x1-llama3-8b")) if not isinstance(time, missing)]
    with pytest.raises(MeasurementError, match=said):
        points(made, 8_192)


def test_repetitions_are_one_point_and_few_points_too_few():
    many = [PrefillTime(64, 0, 0.01)] * 9 + [DecodeTime(1, 128, 8, 0.01)] * 9
    with pytest.raises(MeasurementError, match="1 different prefill times, at least 4"):
        points(many, 8_192)
    made = times(load_profile("h100x1-llama3-8b"), noise=0.1, repetitions=5)
    found = points(made, 8_192)
    assert len(found) == len(made) / 5
    assert found[0].seconds == median(time.seconds for time in made[:5])


def test_a_prompt_is_prefilled_in_chunks_and_a_decode_attends_to_what_it_said():
    four = [PrefillTime(tokens, 0, 1.0) for tokens in (64, 128, 256)] + [PrefillTime(20_000, 0, 1.0)]
    four += [PrefillTime(20_000, 9_984, 1.0)] + [DecodeTime(batch, 100, 4, 1.0) for batch in (1, 2, 3, 8)]
    found = {point.name: point for point in points(four, 8_192)}
    assert [each.load.prefill_tokens for each in found["20,000"].passes] == [8_192, 8_192, 3_616]
    assert [each.load.prefill_context_tokens for each in found["20,000"].passes] == [0, 8_192, 16_384]
    assert sum(each.load.prefill_pairs for each in found["20,000"].passes) == 20_000 * 20_001 / 2
    after = found["10,016 after 9,984"]
    assert [each.load.prefill_tokens for each in after.passes] == [8_192, 1_824]
    assert after.passes[0].load.prefill_context_tokens == 9_984
    [decode] = found["8 x 100"].passes
    assert (decode.count, decode.load.decodes) == (4, 8)
    assert decode.load.context_tokens == 8 * (101 + 102 + 103 + 104) / 4


def test_a_base_profile_is_told_and_computed():
    base = base_profile(FACTS, "mine", HARDWARE)
    known = load_profile("h100x1-llama3-8b")
    assert (base.kv_tokens, base.context_tokens, base.chunk_tokens, base.page_tokens) == (400_000, 131_072, 8_192, 64)
    assert base.weight_bytes == pytest.approx(known.weight_bytes, rel=1e-3)
    assert base.flops_per_token == pytest.approx(known.flops_per_token, rel=1e-3)
    assert base.attention_flops_per_pair == known.attention_flops_per_pair
    assert base.kv_bytes_per_token == known.kv_bytes_per_token
    check_physical(base)
    small = msgspec.structs.replace(FACTS, kv_tokens=30_000, chunk_tokens=30)
    assert base_profile(small, "mine", HARDWARE).context_tokens == base_profile(small, "mine", HARDWARE).kv_tokens
    assert base_profile(small, "mine", HARDWARE).chunk_tokens == 64
    with pytest.raises(MeasurementError, match="less than a page"):
        base_profile(msgspec.structs.replace(FACTS, kv_tokens=63), "mine", HARDWARE)


def test_several_gpus_and_other_models():
    four = msgspec.structs.replace(FACTS, gpus=4, tensor_parallel=4)
    assert base_profile(four, "mine", HARDWARE).peak_flops == 4 * HARDWARE.peak_flops
    assert base_profile(four, "mine", HARDWARE).kv_bytes_per_token == 131_072
    sixteen = msgspec.structs.replace(FACTS, gpus=16, tensor_parallel=16, kv_element_bytes=1)
    assert base_profile(sixteen, "mine", HARDWARE).kv_bytes_per_token == 131_072  # each head twice, in one byte
    strange = msgspec.structs.replace(FACTS, shape=None)
    with pytest.raises(MeasurementError, match="--base"):
        base_profile(strange, "mine", HARDWARE)
    costs = load_profile("h200x8-deepseek-v3")
    taken = base_profile(strange, "mine", HARDWARE, costs)
    assert (taken.experts, taken.weight_bytes, taken.kv_tokens) == (256, 671e9, 400_000)
    assert (taken.peak_flops, taken.host_kv_tokens) == (HARDWARE.peak_flops, 0)


def test_only_dense_shapes_are_computed():
    assert SHAPE.parameters == pytest.approx(8.03e9, rel=1e-3)
    tied = shape_of(json.dumps({**LLAMA3_8B, "tie_word_embeddings": True}).encode())
    assert SHAPE.parameters - tied.parameters == 128_256 * 4_096
    for change, said in (({"model_type": "deepseek_v3"}, "deepseek_v3"), ({"hidden_size": "wide"}, "hidden_size")):
        with pytest.raises(ShapeError, match=said):
            shape_of(json.dumps({**LLAMA3_8B, **change}).encode())
