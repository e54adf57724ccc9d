"""The entry point, in a process that has the parts of SGLang which it touches: named, refused, opened."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from saga_sglang.plugin import register, strategy
from saga_sglang.policy import SagaStrategy


@pytest.fixture
def sglang(monkeypatch):
    """Its modules as SGLang 0.5.23 has them, one rank; tests/real_sglang holds the plugin to the real ones."""
    made = SimpleNamespace(choices=["lru"], factories={"lru": object}, parallel=SimpleNamespace(tp_size=1, pp_size=1))

    def module(name: str, **content) -> None:
        fake = ModuleType(name)
        fake.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, fake)

    for package in ("sglang", "sglang.srt", "sglang.srt.arg_groups", "sglang.srt.mem_cache"):
        module(package, __path__=[])
    module("sglang.srt.mem_cache.unified_cache", __path__=[])
    module("sglang.srt.arg_groups.choices", add_radix_eviction_policy_choices=made.choices.extend)
    module("sglang.srt.mem_cache.utils", _EVICTION_POLICY_FACTORIES=made.factories)
    module("sglang.srt.mem_cache.unified_cache.component_type", ComponentType=SimpleNamespace(FULL=0))
    module("sglang.srt.runtime_context", get_parallel=lambda: made.parallel)
    return made


def test_the_policy_can_be_named_once(sglang):
    register()
    register()

    assert sglang.choices == ["lru", "saga"]
    assert sglang.factories["saga"] is strategy


def test_the_policy_opens_its_channel(sglang, tmp_path):
    assert isinstance(strategy(file=str(tmp_path / "channel")), SagaStrategy)
    assert (tmp_path / "channel").exists()


def test_a_policy_without_a_channel_says_which_flag_it_needs(sglang):
    with pytest.raises(ValueError, match="--radix-eviction-policy-config"):
        strategy()


@pytest.mark.parametrize("ranks", [{"tp_size": 2, "pp_size": 1}, {"tp_size": 1, "pp_size": 4}])
def test_ranks_that_must_agree_are_refused(sglang, tmp_path, ranks):
    sglang.parallel = SimpleNamespace(**ranks)
    with pytest.raises(ValueError, match=r"one rank per replica.*use lru"):
        strategy(file=str(tmp_path / "channel"))
