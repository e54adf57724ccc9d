"""Settings come from the environment, strictly."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest

from saga.runtime.config import load, load_shared
from saga.runtime.errors import StartError


class Mode(Enum):
    """A closed choice."""

    FAST = "fast"
    SLOW = "slow"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One field of each kind."""

    port: int
    speed: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    profile: Literal["a", "b"] = "a"
    verbose: bool = False
    journal: Path | None = None
    pools: tuple[str, ...] = ()
    mode: Mode = Mode.FAST
    nats_url: str = "nats://here"
    cell: str = "main"

    def __post_init__(self) -> None:
        if self.port == 13:
            raise ValueError("SAGA_X_PORT must not be 13")


def test_every_kind_of_value_is_parsed():
    settings = load(
        Settings,
        "SAGA_X_",
        {
            "SAGA_X_PORT": "80",
            "SAGA_X_SPEED": "2.5",
            "SAGA_X_PROFILE": "b",
            "SAGA_X_VERBOSE": "true",
            "SAGA_X_JOURNAL": "/tmp/j",
            "SAGA_X_POOLS": "one, two,",
            "SAGA_X_MODE": "slow",
            "SAGA_NATS_URL": "nats://there",
            "SAGA_CELL": "east",
            "SAGA_Y_UNKNOWN": "of another service",
            "PATH": "/bin",
        },
    )

    assert settings == Settings(
        port=80,
        speed=2.5,
        profile="b",
        verbose=True,
        journal=Path("/tmp/j"),
        pools=("one", "two"),
        mode=Mode.SLOW,
        nats_url="nats://there",
        cell="east",
    )


def test_what_is_not_set_has_its_default():
    assert load(Settings, "SAGA_X_", {"SAGA_X_PORT": "80"}) == Settings(port=80)


@pytest.mark.parametrize(
    ("environ", "parts"),
    [
        ({"SAGA_X_PORTS": "1"}, ["unknown setting SAGA_X_PORTS", "SAGA_X_PORT (int, required)"]),
        ({"SAGA_X_PORT": "http"}, ["SAGA_X_PORT='http'", "expected int", "SAGA_X_SPEED (float, default 1.0)"]),
        ({"SAGA_X_PORT": "1", "SAGA_X_SPEED": "-1"}, ["SAGA_X_SPEED='-1'", "expected float", "> 0"]),
        ({"SAGA_X_PORT": "1", "SAGA_X_PROFILE": "c"}, ["SAGA_X_PROFILE='c'", "expected a | b"]),
        ({"SAGA_X_PORT": "1", "SAGA_X_VERBOSE": "maybe"}, ["SAGA_X_VERBOSE='maybe'", "expected bool"]),
        ({"SAGA_X_PORT": "13"}, ["must not be 13"]),
        ({}, ["SAGA_X_PORT is not set, expected int"]),
    ],
)
def test_a_bad_setting_stops_the_start_and_names_itself(environ: dict[str, str], parts: list[str]):
    with pytest.raises(StartError) as caught:
        load(Settings, "SAGA_X_", environ)

    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shared_settings_ignore_those_of_the_services():
    shared = load_shared({"SAGA_NATS_URL": "nats://there", "SAGA_LOG": "json", "SAGA_ENGINE_PORT": "1"})

    assert (shared.nats_url, shared.cell, shared.log, shared.metrics_port) == ("nats://there", "main", "json", -1)
    with pytest.raises(StartError, match=r"SAGA_LOG='xml': expected  ?\| json \| pretty"):
        load_shared({"SAGA_LOG": "xml"})
