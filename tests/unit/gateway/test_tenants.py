"""API keys to tenants."""

import pytest

from saga.contract.errors import StartError
from saga.gateway.api_errors import ApiError
from saga.gateway.tenants import Tenants

FILE = """
[tenants.red]
keys = ["k1", "k2"]
[tenants.blue]
keys = ["k3"]
"""


def test_without_a_file_everybody_is_default():
    tenants = Tenants()
    assert tenants.open
    assert tenants.of(None) == tenants.of("Bearer anything")
    assert (tenants.of(None).id, tenants.of(None).cache_salt) == ("default", "")


def test_keys_name_their_tenant_and_its_salt():
    tenants = Tenants.parse(FILE, "f.toml")
    assert not tenants.open
    assert tenants.of("Bearer k2").id == "red"
    assert tenants.of("bearer  k3 ").id == "blue"
    assert tenants.of("Bearer k1").cache_salt != tenants.of("Bearer k3").cache_salt


@pytest.mark.parametrize("header", [None, "", "k1", "Basic k1", "Bearer", "Bearer k4", "Bearer ké"])
def test_anything_else_is_refused(header):
    with pytest.raises(ApiError) as raised:
        Tenants.parse(FILE, "f.toml").of(header)
    assert raised.value.status == 401


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        "",
        "[tenants]",
        "[tenants.a]\nkey = ['x']",
        "[tenants.a]\nkeys = [1]",
        "[tenants.a]\nkeys = ['']",
        "[tenants.'a b']\nkeys = ['x']",
        "[tenants.a]\nkeys = ['x']\n[tenants.b]\nkeys = ['x']",
        "[other]",
    ],
)
def test_a_bad_file_stops_the_start_and_is_named(text):
    with pytest.raises(StartError, match=r"f\.toml"):
        Tenants.parse(text, "f.toml")
