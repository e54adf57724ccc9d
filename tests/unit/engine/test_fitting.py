"""Constants that made the times are found again; what the model cannot tell is seen in the residuals."""

import msgspec
import pytest
from measured import times

from saga.engine.fitting import FitError, fit
from saga.engine.measurements import DecodeTime, PrefillTime, points
from saga.engine.profile import known_profiles, load_profile
from saga.engine.timing import IterationTimer
from saga.sim.clusters import ClusterError, check_physical

NAMES = known_profiles()
UNKNOWN = {"mfu": 1.0, "mbu": 1.0, "overhead_s": 0.0}


def fit_to(made, profile):
    """A fit that knows all of a profile but what is fitted."""
    return fit(points(made, profile.chunk_tokens), msgspec.structs.replace(profile, **UNKNOWN))


@pytest.mark.parametrize("name", NAMES)
def test_constants_are_found_again(name):
    truth = load_profile(name)
    found = fit_to(times(truth), truth)
    assert found.profile.mfu == pytest.approx(truth.mfu, rel=1e-3)
    assert found.profile.mbu == pytest.approx(truth.mbu, rel=1e-3)
    assert found.profile.overhead_s == pytest.approx(truth.overhead_s, rel=1e-2)
    assert found.good
    assert max(abs(residual.error) for residual in found.residuals) < 1e-3
    check_physical(found.profile)
    assert msgspec.structs.replace(found.profile, mfu=truth.mfu, mbu=truth.mbu, overhead_s=truth.overhead_s) == truth


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("noise", "strays"), [(0.05, 0.0), (0.1, 0.0), (0.05, 0.1)])
def test_noise_and_strays_move_them_little(name, noise, strays):
    """Reading the weights and the overhead are both in every pass: noise shifts time from one to the other."""
    truth = load_profile(name)
    one_s = IterationTimer(truth).decode_pass_s(1, 0)
    for seed in range(2):
        found = fit_to(times(truth, noise=noise, strays=strays, seed=seed), truth)
        assert found.profile.mfu == pytest.approx(truth.mfu, rel=0.05)
        assert found.profile.mbu == pytest.approx(truth.mbu, rel=0.12)
        assert found.profile.overhead_s == pytest.approx(truth.overhead_s, abs=0.12 * one_s)
        assert IterationTimer(found.profile).decode_pass_s(1, 0) == pytest.approx(one_s, rel=0.05)
        assert found.good
        assert {group.group for group in found.groups} == {"prefill", "prefill after cached", "decode"}
        assert all(group.median <= group.p90 <= abs(group.worst_error) for group in found.groups)


@pytest.mark.parametrize(("mfu", "mbu", "overhead_s"), [(0.2, 0.9, 0.0), (0.8, 0.3, 0.02), (1.0, 1.0, 0.0005)])
def test_far_from_what_profiles_assume(mfu, mbu, overhead_s):
    truth = msgspec.structs.replace(load_profile("h100x1-llama3-8b"), mfu=mfu, mbu=mbu, overhead_s=overhead_s)
    found = fit_to(times(truth), truth).profile
    assert (found.mfu, found.mbu) == pytest.approx((mfu, mbu), rel=1e-3)
    assert found.overhead_s == pytest.approx(overhead_s, abs=1e-5)


@pytest.mark.parametrize(("wrong", "named"), [({"peak_flops": 4e14}, "mfu"), ({"mem_bytes_per_s": 2e12}, "mbu")])
def test_a_server_faster_than_its_data_sheet_is_refused_with_the_constant(wrong, named):
    truth = load_profile("h100x1-llama3-8b")
    found = fit_to(times(truth), msgspec.structs.replace(truth, **wrong))
    with pytest.raises(ClusterError, match=named):
        check_physical(found.profile)


def test_capacity_beyond_the_memory_is_refused_with_the_constant():
    truth = msgspec.structs.replace(load_profile("h100x1-llama3-8b"), kv_tokens=448_000)
    with pytest.raises(ClusterError, match="kv_tokens"):
        check_physical(fit_to(times(truth), truth).profile)


def test_times_that_no_roofline_makes_are_told_by_the_residuals():
    """A server whose decode step falls with the batch, and grows by nothing else."""
    truth = load_profile("h100x1-llama3-8b")
    made = [
        msgspec.structs.replace(time, seconds=time.passes * 0.4 / time.batch) if isinstance(time, DecodeTime) else time
        for time in times(truth)
    ]
    found = fit_to(made, truth)
    assert not found.good
    decode = next(group for group in found.groups if group.group == "decode")
    assert decode.median > 0.3


def test_what_makes_no_difference_is_not_fitted():
    truth = load_profile("h100x1-llama3-8b")
    made = times(truth)
    short = [time for time in made if isinstance(time, DecodeTime) or time.prompt_tokens <= 128]
    short += [PrefillTime(96, 0, 0.01), PrefillTime(32, 0, 0.01)]
    with pytest.raises(FitError, match=r"mfu cannot be told: 0 points .* measure longer prompts"):
        fit_to(short, truth)
    slow_compute = msgspec.structs.replace(truth, mfu=0.001)
    with pytest.raises(FitError, match="mbu cannot be told"):
        fit_to(times(slow_compute), slow_compute)
