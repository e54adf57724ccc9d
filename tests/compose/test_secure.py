"""A cell that is shut: TLS in front of its gateway and at NATS, a NATS user with its own subjects for each service, API
keys. As compose/secure.yml and compose/tls.yml have it, and as docs/operations.md says to start it."""

import json
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from composed_cell import ComposedCell, until
from docker_engine import DockerEngine

TREE = Path(__file__).parents[2]
VARIANTS = ("compose/secure.yml", "compose/tls.yml")
GATEWAY = "https://127.0.0.1:8443"
NATS_PORT = 4222


class Shut:
    """The cell, whom to believe, and a key of the tenant `acme`."""

    def __init__(self, cell: ComposedCell, ca: Path) -> None:
        self.cell = cell
        self.trusting = ssl.create_default_context(cafile=str(ca))
        self.key = ""

    def operator(self, *words: str) -> str:
        """What `saga WORDS` prints, run as the operator."""
        return self.cell.compose("run", "--rm", "-T", "operator", "saga", *words)

    def ask(self, path: str, body: object = None, *, key: str = "") -> tuple[int, str]:
        """Status and body, over TLS that is verified."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"{GATEWAY}{path}", data, headers)

        def ask() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(asked, timeout=60.0, context=self.trusting) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()

        return self.cell.network.run(ask)

    def complete(self) -> tuple[int, str]:
        """A step of acme's."""
        _status, models = self.ask("/v1/models", key=self.key)
        model = json.loads(models)["data"][0]["id"]
        return self.ask("/v1/completions", {"model": model, "prompt": "shut " * 100, "max_tokens": 4}, key=self.key)


def write_certificates(folder: Path) -> Path:
    """Beside the passwords, for the names that are used; readable for the containers' user. The CA's file."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, address in (("nats", "nats"), ("gateway", "127.0.0.1")):
        made = authority.issue_cert(address)
        made.private_key_pem.write_to_path(folder / f"{name}.key.pem")
        for blob in made.cert_chain_pems:
            blob.write_to_path(folder / f"{name}.cert.pem", append=True)
    for file in folder.glob("*.pem"):
        file.chmod(0o644)  # as the passwords: nobody else may enter the folder
    return folder / "ca.pem"


@pytest.fixture(scope="module")
def shut(engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shut]:
    """One worker; the gateway on 8443."""
    folder = tmp_path_factory.mktemp("shut") / "secrets"
    subprocess.run([sys.executable, "-m", "saga.cli.main", "nats-users", "--into", str(folder)], check=True)
    ca = write_certificates(folder)
    environ = {"SAGA_SECRETS": str(folder), "SAGA_GATEWAY_LIVE_KEYS": "true", "SAGA_PORT": "8443"}
    cell = ComposedCell(engine, TREE, "shut", environ, VARIANTS)
    try:
        cell.up(worker=1)
        shut = Shut(cell, ca)
        shut.key = shut.operator("keys", "create", "acme").split()[-1]
        until(lambda: shut.ask("/v1/models", key=shut.key)[0] == 200, 60)
        until(lambda: json.loads(shut.ask("/v1/models", key=shut.key)[1])["data"] != [], 90)
        yield shut
    finally:
        cell.down()


def test_a_step_goes_through_for_whoever_has_a_key_and_for_nobody_else(shut: Shut):
    status, said = shut.complete()

    assert (status, json.loads(said)["usage"]["completion_tokens"] if status == 200 else said) == (200, 4)
    assert shut.ask("/v1/models")[0] == 401
    assert shut.ask("/v1/models", key="sk-saga-made-up")[0] == 401


def test_the_gateway_answers_nobody_without_tls(shut: Shut):
    status, _ = shut.cell.get(GATEWAY.replace("https", "http") + "/readyz")

    assert status == 0


def test_nats_wants_tls_and_a_password(shut: Shut):
    (nats,) = shut.cell.containers("nats")
    greeting = ["bash", "-c", f"exec 3<>/dev/tcp/{nats.address}/{NATS_PORT}; head -n 1 <&3"]

    told = subprocess.run(shut.cell.network.command(*greeting), capture_output=True, text=True, check=True).stdout

    info = json.loads(told.removeprefix("INFO "))
    assert (info["tls_required"], info["auth_required"]) == (True, True)


def test_commands_for_the_cell_run_as_the_operator(shut: Shut):
    assert shut.operator("tenants", "set", "acme", "running_steps=8").strip() == "acme: running_steps=8"
    assert "acme" in shut.operator("keys", "list")
    assert len(re.findall("serving", shut.operator("workers"))) == 1


def test_a_leader_that_is_killed_is_followed_by_one_that_may_do_as_much(shut: Shut):
    shut.cell.kill(shut.cell.leader("admission"))

    status, said = shut.complete()

    assert status == 200, said
    shut.cell.wait_healthy()


def test_prometheus_finds_everybody(shut: Shut):
    def away() -> list[object]:
        return shut.cell.query("up == 0") + ([] if shut.cell.query('up{job="gateway"} == 1') else ["no gateway"])

    until(lambda: away() == [], 60, lambda: str(away()))


def test_nobody_wants_more_than_its_user_may(shut: Shut):
    said = shut.cell.compose("logs", "--no-color")

    assert "bus.refused" not in said, [line for line in said.splitlines() if "bus.refused" in line][:5]
