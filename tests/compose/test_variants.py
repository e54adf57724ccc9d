"""What compose makes of docker-compose.yml and of each variant laid over it. Starts no engine."""

import json
import subprocess
from pathlib import Path

import docker_engine
import pytest
from docker_engine import ENVIRON, NoDockerError

TREE = Path(__file__).parents[2]
COMPOSE = TREE / "compose"
VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "ha": ("ha.yml",),
    "tenants": ("tenants.yml",),
    "secure": ("secure.yml",),
    "tls": ("secure.yml", "tls.yml"),
    "ha, tenants": ("ha.yml", "tenants.yml"),
    "tls, tenants": ("secure.yml", "tls.yml", "tenants.yml"),
}


@pytest.fixture(scope="module", autouse=True)
def _compose() -> None:
    """The program is installed."""
    try:
        docker_engine.install()
    except NoDockerError as reason:
        pytest.skip(f"no docker-compose here: {reason}")


def made(tmp_path: Path, variants: tuple[str, ...]) -> dict[str, dict[str, object]]:
    """Services, as compose understands them. Whatever it warns of fails."""
    (tmp_path / "nats.env").write_text("SAGA_NATS_GATEWAY_PASSWORD=x\n")
    files = [part for name in variants for part in ("--file", str(COMPOSE / name))]
    secrets = {"SAGA_SECRETS": str(tmp_path), "SAGA_TENANTS": str(tmp_path / "tenants.toml")}
    command = ["docker-compose", "--file", str(TREE / "docker-compose.yml"), *files, "config"]
    done = subprocess.run(command, env=ENVIRON | secrets, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    script = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin)['services'], sys.stdout)"
    read = ["/usr/bin/python3", "-c", script]  # docker-compose's own Python has PyYAML
    told = subprocess.run(read, input=done.stdout, capture_output=True, text=True, check=True).stdout
    services: dict[str, dict[str, object]] = json.loads(told)
    return services


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_understood_and_takes_nothing_away(tmp_path: Path, name: str):
    plain, services = made(tmp_path, ()), made(tmp_path, VARIANTS[name])

    assert set(plain) <= set(services)
    for service, facts in services.items():
        assert facts["read_only"] is True, service
        assert facts["cap_drop"] == ["ALL"], service
        assert set(plain.get(service, {})) <= set(facts), service


def test_every_file_in_compose_is_such_a_variant():
    assert {file.name for file in COMPOSE.glob("*.yml")} == {name for names in VARIANTS.values() for name in names}


def test_prometheus_with_tls_asks_as_without_but_for_the_gateways():
    """So that a job that is added to one is added to the other."""
    plain, tls = (
        [line for line in (COMPOSE / "prometheus" / name).read_text().splitlines() if not line.startswith("#")]
        for name in ("prometheus.yml", "prometheus-tls.yml")
    )
    at = tls.index("    scheme: https")

    assert tls[:at] + tls[at + 2 :] == plain
    assert tls[at - 1] == "  - job_name: gateway"
