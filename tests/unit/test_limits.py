"""docs/limits.md says what the code does: every name in it exists and has the value that is written there."""

import re
import sys
from importlib import import_module
from pathlib import Path

import msgspec
import pytest

from saga.admission.config import AdmissionSettings
from saga.console.config import ConsoleSettings
from saga.gateway.config import GatewaySettings

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "SAGA_GATEWAY_": GatewaySettings,
    "SAGA_ADMISSION_": AdmissionSettings,
    "SAGA_CONSOLE_": ConsoleSettings,
}
UNITS = {"KiB": 1024, "MiB": 1024 * 1024, "s": 1, "": 1}
ROW = re.compile(r"\| [^|]+ \| `([A-Za-z_.]+)` \| ([\d,]+) ?(KiB|MiB|s|) \|")
ROWS = [
    (name, int(number.replace(",", "")) * UNITS[unit])
    for name, number, unit in ROW.findall((ROOT / "docs" / "limits.md").read_text())
]


def value(name: str) -> float:
    """What the code has under a name of the table."""
    for prefix, settings in SETTINGS.items():
        if name.startswith(prefix):
            field = name.removeprefix(prefix).lower()
            return {entry.name: entry.default for entry in msgspec.structs.fields(settings)}[field]
    module, _, constant = name.rpartition(".")
    return getattr(import_module(module), constant)


@pytest.mark.parametrize(("name", "written"), ROWS, ids=[name for name, _ in ROWS])
def test_a_limit_is_what_the_table_says(name, written, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "plugins" / "sglang")])
    assert value(name) == written


def test_the_table_was_read():
    assert len(ROWS) > 50
    assert len({name for name, _ in ROWS}) == len(ROWS)


def test_every_bound_of_the_gateways_and_admissions_settings_is_in_the_table():
    text = (ROOT / "docs" / "limits.md").read_text()
    for prefix in ("SAGA_GATEWAY_", "SAGA_ADMISSION_"):
        for field in SETTINGS[prefix].__struct_fields__:
            if field.endswith(("_bytes", "_s")) or field.startswith("max_"):
                if field == "infer_end_s":  # when a workflow counts as over: no bound on anybody
                    continue
                assert f"`{prefix}{field.upper()}`" in text
