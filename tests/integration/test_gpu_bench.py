"""bench/gpu: a server with a known profile is measured over HTTP and its constants come out; bad input is told."""

import asyncio
import sys
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from measured_server import MeasuredServer

from saga.engine.profile import load_profile
from saga.sim.clusters import load_cluster

BENCH = Path(__file__).parents[2] / "bench"
GPU = ("--gpu", "NVIDIA H100 80GB HBM3", "--gpu-bytes", "85520809984")
SMALL = ("--longest-prompt", "2048", "--largest-batch", "4", "--passes", "8", "--repetitions", "1")
TRUTH = msgspec.structs.replace(load_profile("h100x1-llama3-8b"), mfu=0.47, mbu=0.81, overhead_s=0.0023)


async def run(*command: object) -> tuple[int, str]:
    """(exit status, all that it said)."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


@pytest.fixture
async def model(tmp_path):
    """A folder with the shape of an 8B model."""
    folder = tmp_path / "model"
    assert (await run(sys.executable, BENCH / "gpu" / "make_model.py", "llama3-8b", folder))[0] == 0
    return folder


@pytest.fixture
async def measured(tmp_path, model):
    """Measures a server of a profile: (exit status, what it said, the file)."""
    runners = []

    async def measured(profile=TRUTH, alter=None, changes=None, more=()):
        server = MeasuredServer(profile, model, alter)
        server.info |= changes or {}
        runners.append(runner := web.AppRunner(server.app()))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        out = tmp_path / "measurements.jsonl"
        script = BENCH / "gpu" / "measure.py"
        return *await run(sys.executable, script, "--url", url, "--out", out, *GPU, *SMALL, *more), out

    yield measured
    for runner in runners:
        await runner.cleanup()


async def fitted(measurements, out, *more):
    """(exit status, what it said) of a fit."""
    return await run(sys.executable, BENCH / "gpu" / "fit_profile.py", measurements, "--out", out, *more)


async def test_the_constants_of_a_measured_server_come_out_again(measured, tmp_path):
    status, said, file = await measured()
    assert (status, "left out" in said) == (0, False), said
    out = tmp_path / "mine.toml"
    status, said = await fitted(file, out)
    assert status == 0, said
    found = load_profile(str(out))
    assert found.name == "mine"
    assert (found.mfu, found.mbu) == pytest.approx((TRUTH.mfu, TRUTH.mbu), rel=0.01)
    assert found.overhead_s == pytest.approx(TRUTH.overhead_s, rel=0.05)
    assert (found.kv_tokens, found.chunk_tokens) == (TRUTH.kv_tokens, TRUTH.chunk_tokens)
    assert "decode" in said
    assert "prefill after cached" in said
    # A cluster of it can be simulated.
    (tmp_path / "cluster.toml").write_text(f'name = "mine"\nprofile = "{out}"\nworkers = 2\n')
    cluster, profile = load_cluster(str(tmp_path / "cluster.toml"))
    assert (cluster.workers, profile) == (2, found)
    status, said = await run(
        *(sys.executable, "-m", "saga.cli.main", "bench", "sim", "--cluster", tmp_path / "cluster.toml"),
        *("--system", "saga", "--tasks", "2", "--pressure", "0.1"),
    )
    assert status == 0, said


async def test_a_server_that_no_roofline_describes_is_no_success(measured, tmp_path):
    def later(number, meta):
        return meta | {"request_finished_ts": meta["prefill_finished_time"] + 1 + 5 * (number % 7)}

    status, said, file = await measured(alter=later)
    assert status == 0, said
    status, said = await fitted(file, tmp_path / "mine.toml")
    assert status == 1
    assert "a median error above 10%: decode" in said
    assert "WORSE THAN THE GOAL" in (tmp_path / "mine.toml").read_text()


async def test_a_profile_beyond_its_hardware_is_not_written(measured, tmp_path):
    _, _, file = await measured()
    for flags, named in (
        (("--peak-flops", "4e14"), "mfu"),
        (("--mem-bytes-per-s", "2e12"), "mbu"),
        (("--hbm-bytes", "70e9"), "kv_tokens"),
    ):
        status, said = await fitted(file, tmp_path / "mine.toml", *flags)
        assert status == 1
        assert f"not fitted: profile mine: {named} " in said
        assert [path.name for path in tmp_path.iterdir() if path.suffix == ".toml"] == []


async def test_a_request_that_fails_in_the_middle_ends_it(measured, tmp_path):
    status, said, file = await measured(alter=lambda number, meta: None if number == 30 else meta)
    assert status == 1
    assert "/generate answered 500" in said
    status, said = await fitted(file, tmp_path / "mine.toml")
    assert status == 2
    assert "failed: /generate answered 500" in said
    assert not (tmp_path / "mine.toml").exists()


async def test_what_was_no_decode_of_a_whole_batch_is_left_out(measured):
    status, said, _ = await measured(alter=lambda number, meta: meta | {"num_retractions": int(number > 40)})
    assert status == 0
    assert "left out: decode of 4 x 2,048: requests were retracted" in said


async def test_when_the_time_is_over_the_rest_is_left_out(measured, tmp_path):
    status, said, file = await measured(more=("--budget-s", "0.000001"))
    assert status == 0
    assert "left out: prefill of 64 tokens after 0: the 0 s are over" in said
    status, said = await fitted(file, tmp_path / "mine.toml")
    assert (status, said) == (2, "fit_profile: 0 different prefill times, at least 4 are needed\n")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"enable_metrics": False}, "--enable-metrics"),
        ({"disable_radix_cache": True}, "--disable-radix-cache"),
        ({"speculative_algorithm": "EAGLE"}, "--speculative-algorithm"),
        ({"dp_size": 2}, "--dp-size 1"),
        ({"pp_size": 2}, "--pp-size 1"),
        ({"internal_states": []}, "is not SGLang's"),
    ],
)
async def test_a_server_that_cannot_be_measured_is_refused(measured, changes, said):
    status, output, _ = await measured(changes=changes)
    assert status == 1
    assert said in output
    assert "Traceback" not in output


async def test_bad_input_is_one_line(measured, tmp_path):
    missing = tmp_path / "none.jsonl"
    status, said = await fitted(missing, tmp_path / "mine.toml")
    assert (status, said.count("\n")) == (2, 1)
    status, said, file = await measured(more=("--gpu", "Riva 128"))
    assert status == 0
    status, said = await fitted(file, tmp_path / "mine.toml")
    assert status == 2
    assert "peak_flops of 'Riva 128' is unknown: --peak-flops; known GPUs: NVIDIA A100" in said
    status, said = await fitted(file, tmp_path / "mine.toml", "--base", "nope")
    assert status == 2
    status, said = await run(
        sys.executable, BENCH / "gpu" / "measure.py", "--url", "http://127.0.0.1:9", "--out", missing
    )
    assert status == 1
    assert "does not answer" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--tp", "none"), "none is no whole number"),
        (("--model", "/nowhere"), "/nowhere has no config.json"),
        (("--shape",), "--shape needs a value"),
        (("--magic",), "what is --magic?"),
        (("--smoke", "--python", sys.executable), "without sglang"),
    ],
)
async def test_the_script_says_what_is_wrong(flags, said):
    status, output = await run(BENCH / "gpu.sh", *flags)
    assert status == 2
    assert said in output
