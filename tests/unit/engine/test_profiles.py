"""Profiles are physical: nothing beats its roofline, all fits its memory; shrinking keeps times and pressure."""

import math

import msgspec
import pytest

from saga.engine.config import EngineConfig, profile_of
from saga.engine.profile import UnknownProfileError, known_profiles, load_profile
from saga.engine.timing import IterationLoad, IterationTimer, prefill_pairs
from saga.runtime.errors import StartError

NAMES = known_profiles()


def test_the_published_ones_are_there():
    assert {"a100x4-llama3-70b", "h100x1-llama3-8b", "h200x8-deepseek-v3"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_weights_and_kv_fit_the_memory(name):
    profile = load_profile(name)
    assert profile.name == name
    assert profile.weight_bytes + profile.kv_tokens * profile.kv_bytes_per_token <= 0.91 * profile.hbm_bytes
    assert profile.context_tokens <= profile.kv_tokens
    assert profile.chunk_tokens % profile.page_tokens == profile.kv_tokens % profile.page_tokens == 0
    assert profile.expert_weight_bytes < profile.weight_bytes


@pytest.mark.parametrize("name", NAMES)
def test_no_iteration_beats_the_roofline(name):
    profile = load_profile(name)
    timer = IterationTimer(profile)
    for decodes in (0, 1, 2, 8, 32, 128, 256):
        for context in (0, 100, 2_000, 30_000):
            for chunk in (0, 1, 64, 512, 8192):
                tokens = decodes + chunk
                if not tokens:
                    continue
                load = IterationLoad(chunk, prefill_pairs(context, chunk), context, decodes, decodes * context)
                pairs = load.prefill_pairs + load.context_tokens
                ideal_compute_s = (
                    tokens * profile.flops_per_token + pairs * profile.attention_flops_per_pair
                ) / profile.peak_flops
                # Of a mixture of experts at least those of one token must be read.
                routed = profile.expert_weight_bytes * (1 - profile.experts_per_token / profile.experts)
                kv_bytes = (decodes + (chunk > 0)) * context * profile.kv_bytes_per_token
                ideal_memory_s = (profile.weight_bytes - routed + kv_bytes) / profile.mem_bytes_per_s
                assert timer.iteration_s(load) >= max(ideal_compute_s, ideal_memory_s)


def test_known_figures_of_the_published_worker():
    """saga-facts: decode step at least 17.3 ms, about 1.8K tokens/s at batch 32, prefill at most 8.9 tokens/ms."""
    profile = load_profile("a100x4-llama3-70b")
    timer = IterationTimer(profile)
    assert 440_000 < profile.kv_tokens < 450_000
    assert timer.decode_pass_s(1, 0) > 0.0173
    assert 32 / timer.decode_pass_s(32, 0) < 1850
    assert 8192 / timer.iteration_s(IterationLoad(8192, prefill_pairs(0, 8192))) < 8900


def test_experts_read_grow_with_the_batch_up_to_all_of_them():
    profile = load_profile("h200x8-deepseek-v3")
    one, some, many = (profile.weight_bytes_read(tokens) for tokens in (1, 32, 10_000))
    dense = profile.weight_bytes - profile.expert_weight_bytes
    assert one == pytest.approx(dense + profile.expert_weight_bytes * 8 / 256)
    assert one < some < many
    assert many == pytest.approx(profile.weight_bytes)
    assert load_profile("h100x1-llama3-8b").weight_bytes_read(1) == 16.06e9


@pytest.mark.parametrize("name", NAMES)
def test_a_shrunk_profile_takes_the_same_time_for_the_shorter_step(name):
    factor = 16
    profile = load_profile(name)
    small = profile.shrunk(factor)
    assert small.context_tokens == profile.context_tokens // factor
    assert small.kv_tokens == profile.kv_tokens // factor
    assert small.page_tokens == profile.page_tokens
    assert small.shrink == factor
    full, shrunk = IterationTimer(profile), IterationTimer(small)
    real = IterationLoad(8192, prefill_pairs(4096, 8192), 4096, 32, 32 * 16_000)
    less = IterationLoad(512, prefill_pairs(256, 512), 256, 32, 32 * 1000)
    assert shrunk.iteration_s(less) == pytest.approx(full.iteration_s(real), rel=0.01)
    assert shrunk.decode_pass_s(32, 32 * 1000) == pytest.approx(full.decode_pass_s(32, 32 * 16_000))
    costs, small_costs = profile.cost_model(), small.cost_model()
    assert small_costs.prompt_s_per_token == pytest.approx(factor * costs.prompt_s_per_token)
    assert small_costs.output_s_per_token == pytest.approx(factor * costs.output_s_per_token)
    assert small_costs.context_s_per_token == pytest.approx(factor**2 * costs.context_s_per_token)
    assert profile.shrunk(1) is profile
    assert small.shrunk(2).shrink == 32
    with pytest.raises(ValueError, match="at least 1"):
        profile.shrunk(0)


def test_costs_are_marginal_and_positive():
    for name in NAMES:
        costs = load_profile(name).cost_model()
        assert all(math.isfinite(cost) and cost > 0 for cost in msgspec.structs.astuple(costs))
        assert costs.prompt_s_per_token < costs.output_s_per_token


def test_an_unknown_profile_lists_the_known_ones(tmp_path):
    with pytest.raises(UnknownProfileError, match="known: a100x4-llama3-70b, "):
        load_profile("nope")
    with pytest.raises(UnknownProfileError, match="cannot read"):
        load_profile("/nowhere/nope.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text('name = "x"\n')
    with pytest.raises(UnknownProfileError, match="missing required field `model`"):
        load_profile(str(bad))


def test_settings_override_the_profile():
    profile = profile_of(EngineConfig(shrink=16, page_tokens=16, kv_tokens=1 << 40, max_running=3))
    assert (profile.page_tokens, profile.kv_tokens, profile.max_running) == (16, 1 << 40, 3)
    assert (profile.context_tokens, profile.chunk_tokens) == (8192, 512)
    with pytest.raises(StartError, match="SAGA_ENGINE_PROFILE: unknown profile"):
        profile_of(EngineConfig(profile="nope"))
    with pytest.raises(StartError, match="less than one page"):
        profile_of(EngineConfig(kv_tokens=3))
