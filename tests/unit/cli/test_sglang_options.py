"""Real servers from the command line: what cannot work is said before anything starts, with what to do about it."""

import argparse
import sys
from pathlib import Path

import pytest

from saga.cli import sglang_options, up
from saga.cli.sglang import PROVEN_VERSION, SglangSettings, flags, ports_for
from saga.runtime.errors import StartError


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Makes our own Python look as if it had SGLang, and perhaps the plugin."""

    def install(version=PROVEN_VERSION, *, plugin=False):
        site = tmp_path / "site"
        (site / "sglang").mkdir(parents=True)
        (site / "sglang" / "__init__.py").write_text("raise AssertionError('must not be imported: it takes seconds')")
        info = site / f"sglang-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: sglang\nVersion: {version}\n")
        if plugin:
            info = site / "saga_mesh_sglang-0.1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text("Metadata-Version: 2.1\nName: saga-mesh-sglang\nVersion: 0.1.0\n")
            (info / "entry_points.txt").write_text("[sglang.srt.plugins]\nsaga = saga_sglang.plugin:register\n")
        monkeypatch.setenv("PYTHONPATH", str(site))

    return install


def given(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    up.add_parser(parser.add_subparsers())
    return parser.parse_args(["up", "--engine", "sglang", *argv])


def servers(*argv: str, environ=None) -> SglangSettings:
    made = up.servers_from(given(*argv), environ or {})
    assert made is not None
    return made


def test_flags_become_servers(model, installed, monkeypatch):
    installed()
    monkeypatch.setattr(sglang_options, "_GPU_DEVICES", ())

    made = servers("--model", str(model), "--sglang-args", "--tp 2 --dtype 'half'", "--kv-tokens", "9000")

    assert made.model == str(model)
    assert made.python == Path(sys.executable)
    assert (made.cpu, made.page_tokens, made.kv_tokens, made.retention_dir) == (True, 64, 9_000, None)
    assert made.extra == ("--tp", "2", "--dtype", "half")
    assert servers("--model", str(model), "--page-tokens", "16").page_tokens == 16


def test_on_a_machine_with_gpus_each_server_has_its_own(model, installed, monkeypatch, tmp_path):
    installed()
    monkeypatch.setattr(sglang_options, "_GPU_DEVICES", (tmp_path,))
    at = ports_for(1)[0]

    two = servers("--model", str(model), "--sglang-args=--tp=2")
    own = servers("--model", str(model), "--sglang-args=--base-gpu-id 5")

    assert not two.cpu
    assert "--base-gpu-id" not in flags(two, at, 0)
    assert flags(two, at, 3)[flags(two, at, 3).index("--base-gpu-id") + 1] == "6"
    assert flags(own, at, 3).count("--base-gpu-id") == 1


def test_the_python_may_come_from_the_environment(model, installed):
    installed()

    assert servers("--model", str(model), environ={sglang_options.PYTHON_VARIABLE: sys.executable}).python.is_file()
    with pytest.raises(StartError, match="/no/python"):
        servers("--model", str(model), environ={sglang_options.PYTHON_VARIABLE: "/no/python"})


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "needs --model PATH"),
        (("--model", "/no/such"), "/no/such: no such folder"),
        (("--model", "./no-such"), "no such folder"),
        (("--model", "x/y", "--kv-tokens", "-1"), "--kv-tokens must be above 0"),
        (("--model", "x/y", "--profile", "h100"), "--profile is of simulated engines"),
        (("--model", "x/y", "--sglang-python", "/no/python"), "--sglang-python or SAGA_SGLANG_PYTHON"),
    ],
)
def test_what_cannot_work_is_said(argv, said):
    with pytest.raises(StartError) as refusal:
        servers(*argv)
    assert said in str(refusal.value)


def test_a_folder_without_a_model_or_without_weights_is_told_apart(model, installed, tmp_path):
    installed()
    with pytest.raises(StartError, match=r"no config\.json"):
        servers("--model", str(tmp_path))
    (model / "model.safetensors").unlink()
    with pytest.raises(StartError, match="--load-format dummy"):
        servers("--model", str(model))
    assert servers("--model", str(model), "--sglang-args", "--load-format dummy")


def test_a_python_without_sglang_names_the_ways_to_it(model):
    with pytest.raises(StartError) as refusal:
        servers("--model", str(model))
    for way in ("has no SGLang", "saga-mesh[sglang]", "make sglang-cpu", "--sglang-python"):
        assert way in str(refusal.value)


def test_the_plugin_must_be_there_and_brings_its_policy_and_values(model, installed, tmp_path):
    installed(plugin=True)
    argv = ("--model", str(model), "--sglang-plugin", "--state-dir", str(tmp_path))

    command = flags(servers(*argv), ports_for(1)[0])

    assert command[command.index("--radix-eviction-policy") + 1] == "saga"
    assert f"{tmp_path}/retention-0" in command[command.index("--radix-eviction-policy-config") + 1]
    assert up.settings_from(given(*argv), {}).retention_policy == "values"
    assert up.settings_from(given(*argv, "--retention-policy", "tags"), {}).retention_policy == "tags"


@pytest.mark.parametrize("sharded", ["--tp 2", "--pp-size=2", "--tensor-parallel-size 8"])
def test_the_plugin_is_refused_where_ranks_must_agree(model, sharded):
    with pytest.raises(StartError, match="without tensor or pipeline parallelism"):
        servers("--model", str(model), "--sglang-plugin", f"--sglang-args={sharded}")


def test_without_the_plugin_it_is_not_asked_for_in_vain(model, installed):
    installed()
    with pytest.raises(StartError, match=r"pip install \./plugins/sglang"):
        servers("--model", str(model), "--sglang-plugin")


def test_flags_of_real_servers_are_refused_for_simulated_ones():
    flags_given = given("--model", "x")
    flags_given.engine = "simulated"
    with pytest.raises(StartError, match="--model is for real servers: add --engine sglang"):
        up.servers_from(flags_given, {})
    flags_given.model = None
    assert up.servers_from(flags_given, {}) is None
