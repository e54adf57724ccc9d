from importlib import resources
from pathlib import Path

import msgspec
import pytest

from saga.engine.profile import UnknownProfileError, known_profiles, load_profile
from saga.load.cli import main
from saga.sim.clusters import ClusterError, check_physical, known_clusters, load_cluster


def test_all_clusters_are_physical():
    assert known_clusters() == ["joining", "long", "paper", "small", "two-kinds"]
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
        ({"mfu": 1.01}, "mfu"),
        ({"mbu": 1.5}, "mbu"),
        ({"flops_per_token": 70e9}, "flops_per_token"),
        ({"expert_weight_bytes": 142e9}, "expert_weight_bytes"),
        ({"host_kv_tokens": 1_300_000}, "host_kv_tokens .* host_bytes"),
        ({"host_kv_tokens": 448_000}, "host_kv_tokens .* kv_tokens"),
        ({"host_bytes_per_s": 127e9}, "host_bytes_per_s .* host_link_bytes_per_s"),
        ({"host_bytes_per_s_both": 101e9}, "host_bytes_per_s_both .* host_bytes_per_s"),
        ({"host_bytes_per_s": 0.0, "host_bytes_per_s_both": 0.0}, "host_kv_tokens need host_bytes_per_s"),
    ],
)
def test_an_impossible_profile_is_refused_with_the_constant(change: dict[str, float], named: str):
    profile = msgspec.structs.replace(load_profile("a100x4-llama3-70b"), **change)
    with pytest.raises(ClusterError, match=named):
        check_physical(profile)


def test_all_profiles_are_physical_shrunk_too():
    for name in known_profiles():
        check_physical(load_profile(name))
        check_physical(load_profile(name).shrunk(4))


@pytest.mark.parametrize(
    ("text", "named"), [("mfu = 1.2", "mfu"), ("mbu = 1.01", "mbu"), ("peak_flops = 0", "peak_flops")]
)
def test_a_profile_file_beyond_its_roofline_is_refused_with_the_constant(text: str, named: str, tmp_path: Path):
    lines = (resources.files("saga.engine") / "profiles" / "a100x4-llama3-70b.toml").read_text().splitlines()
    changed = [text if line.startswith(f"{named} =") else line for line in lines]
    (tmp_path / "p.toml").write_text("\n".join(changed))
    with pytest.raises(UnknownProfileError, match=named):
        load_profile(str(tmp_path / "p.toml"))


def test_a_cluster_without_workers_is_refused(tmp_path: Path):
    with pytest.raises(ClusterError, match="workers 0"):
        load_cluster("paper", 0)
    (tmp_path / "c.toml").write_text('name = "none"\nprofile = "a100x4-llama3-70b"\nworkers = 0\n')
    with pytest.raises(ClusterError, match="workers"):
        load_cluster(str(tmp_path / "c.toml"))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--cluster", "nowhere"], "known: joining, long, paper, small"),
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


def test_a_cluster_whose_workers_are_all_late_is_refused(tmp_path: Path):
    path = tmp_path / "late.toml"
    path.write_text('name = "late"\nprofile = "a100x4-llama3-70b"\nworkers = 2\nlate = 2\n')
    with pytest.raises(ClusterError, match="late 2 of 2 workers: one must be there from the start"):
        load_cluster(str(path))
    assert load_cluster("joining")[0].late == 1
    with pytest.raises(ClusterError, match="late 1 of 1 workers"):
        load_cluster("joining", 1)
