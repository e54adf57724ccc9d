"""`saga nats-users`: a user for each service, and files for a composed cell."""

from pathlib import Path

import pytest

from saga.cli.main import main
from saga.cli.nats_users import configuration, password_variable
from saga.contract.permissions import ROLES, allowed
from saga.contract.subjects import Subjects

COMPOSE = Path(__file__).parents[3] / "compose"


def test_every_role_has_a_user_and_no_password_is_in_the_text():
    text = configuration("main")

    for role in ROLES:
        assert f"user: {role}\n" in text
        assert f"password: ${password_variable(role)}\n" in text


def test_a_cell_has_subjects_and_buckets_of_its_own():
    here, there = allowed("admission", "here"), allowed("admission", "there")

    shared = (set(here.publish) | set(here.subscribe)) & (set(there.publish) | set(there.subscribe))
    assert shared == {"_INBOX_admission.>"}, "whoever serves two cells on one NATS has two accounts or one inbox"


def test_only_admission_admits_and_only_leaders_grant_or_release():
    subjects = Subjects("main")

    def may(subject: str) -> set[str]:
        return {role for role in ROLES if subject in allowed(role, "main").publish}

    assert may(subjects.step_admitted()) == {"admission"}
    assert may(subjects.every_sessions_released()) == {"admission", "placement"}
    assert may(subjects.leader_hello()) == {"admission", "placement"}
    assert may("$KV.saga-main-keys.>") == may("$KV.saga-main-tenants.>") == {"operator"}


def test_nobody_hears_answers_to_another():
    for role in ROLES:
        inboxes = [subject for subject in allowed(role, "main").subscribe if subject.startswith("_INBOX")]
        assert inboxes == [f"_INBOX_{role}.>"]


def test_a_folder_of_new_passwords_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "secrets"

    assert main(["nats-users", "--into", str(folder)]) == 0

    passwords = {role: (folder / f"{role}.password").read_text().strip() for role in ROLES}
    assert len(set(passwords.values())) == len(ROLES)
    told = dict(line.split("=", 1) for line in (folder / "nats.env").read_text().splitlines())
    assert told == {password_variable(role): password for role, password in passwords.items()}
    assert folder.stat().st_mode & 0o077 == 0
    assert main(["nats-users", "--into", str(folder)]) == 2, "a second time would lock everybody out"
    assert "exists" in capsys.readouterr().err


def test_a_name_that_is_no_cell_is_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["nats-users", "--cell", "a.b"]) == 2
    assert "'a.b' is no name of a cell" in capsys.readouterr().err


def test_the_composed_cell_gives_each_service_its_own_user():
    text = (COMPOSE / "secure.yml").read_text()

    for role in ROLES:
        assert f"SAGA_NATS_USER: {role}" in text
        assert f"/{role}.password:/etc/saga/nats.password:ro" in text
