import msgspec
import pytest

from saga.engine.profile import load_profile
from saga.load.cli import main
from saga.sim.clusters import ClusterError, check_physical, known_clusters, load_cluster


def test_all_clusters_are_physical():
    assert known_clusters() == ["long", "paper", "small"]
    for name in known_clusters():
        load_cluster(name)
    cluster, profile = load_cluster("paper")
    assert (cluster.workers, profile.kv_tokens) == (16, 448_000)
    assert load_cluster("paper", 3)[0].workers == 3
    long = load_cluster("long")[1]
    assert long.context_tokens >= 256 * 1024
    assert long.kv_tokens >= 2_000_000


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kv_tokens": 700_000}, "kv_tokens"),
        ({"weight_bytes": 300e9}, "weight_bytes"),
        ({"context_tokens": 448_001}, "context_tokens"),
    ],
)
def test_an_impossible_profile_is_refused_with_the_constant(change: dict[str, float], named: str):
    profile = msgspec.structs.replace(load_profile("a100x4-llama3-70b"), **change)
    with pytest.raises(ClusterError, match=named):
        check_physical(profile)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--cluster", "nowhere"], "known: long, paper, small"),
        (["--system", "magic"], "unknown system 'magic'"),
        (["--workload", "coding-sessions", "--sessions", "/nowhere"], "no such file"),
        (["--json", "/nowhere/x.json", "--tasks", "1"], "folder that exists"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert main(["sim", *argv]) == 2
    assert said in capsys.readouterr().err


def test_the_table_shows_each_system(capsys: pytest.CaptureFixture[str], tmp_path):
    argv = ["sim", "--system", "session-affinity,saga", "--workers", "1", "--tasks", "4", "--pressure", "0.1"]
    assert main([*argv, "--json", str(tmp_path / "out.json")]) == 0
    shown = capsys.readouterr().out
    assert "session-affinity" in shown
    assert "saga" in shown
    assert (tmp_path / "out.json").read_bytes().startswith(b"{")
