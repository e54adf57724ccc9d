"""Subjects: who listens hears what is meant for it and nothing else."""

from saga.contract.ids import NO_WORKER, GatewayId, WorkerId
from saga.contract.subjects import Subjects


def test_every_subject_lies_in_its_cell():
    here, there = Subjects("here"), Subjects("there")

    assert here.step_ready().startswith("saga.here.")
    assert here.step_ready() != there.step_ready()


def test_a_cancelled_step_without_a_worker_has_a_subject_too():
    assert Subjects().step_cancelled(NO_WORKER) == "saga.main.step.cancelled.-"
    assert Subjects().step_cancelled(WorkerId("w0")) == "saga.main.step.cancelled.w0"


def test_wildcards_cover_what_they_are_named_for():
    subjects = Subjects()

    assert subjects.every_gateway() == subjects.gateway(GatewayId("*"))
    assert subjects.every_lease() == subjects.lease(WorkerId("*"))
    assert subjects.step_finished(WorkerId("w0")).startswith(subjects.every_step_end()[:-1])
