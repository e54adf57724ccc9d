"""API keys to tenants."""

import pytest

from saga.contract.errors import StartError
from saga.contract.tenants import KeyRow
from saga.gateway.api_errors import ApiError
from saga.gateway.tenants import Tenants, digest_of

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
        "[tenants.a]\nsha256 = ['x']",
        f"[tenants.a]\nkeys = ['x']\nsha256 = ['{digest_of('x').hex()}']",
        "[tenants.a]\nkeys = ['x']\n[tenants.b]\nkeys = ['x']",
        "[other]",
    ],
)
def test_a_bad_file_stops_the_start_and_is_named(text):
    with pytest.raises(StartError, match=r"f\.toml"):
        Tenants.parse(text, "f.toml")


def row(key: str, tenant: str = "red") -> KeyRow:
    return KeyRow(tenant=tenant, sha256=digest_of(key).hex())


def test_a_file_may_hold_digests_instead_of_keys():
    tenants = Tenants.parse(f"[tenants.red]\nsha256 = ['{digest_of('k1').hex()}']\n", "f.toml")

    assert tenants.of("Bearer k1").id == "red"
    assert tenants.plain_keys == 0
    assert Tenants.parse(FILE, "f.toml").plain_keys == 3


def test_live_keys_let_in_from_the_moment_they_are_there_to_the_moment_they_go():
    tenants = Tenants(live=True)
    assert not tenants.open
    with pytest.raises(ApiError):
        tenants.of("Bearer k1")

    tenants.learn("0a", row("k1"))
    tenants.learn("0b", row("k2"))
    assert tenants.of("Bearer k1").cache_salt == "red"

    tenants.learn("0a", None)
    with pytest.raises(ApiError):
        tenants.of("Bearer k1")
    assert tenants.of("Bearer k2").id == "red"
    assert tenants.named("red").id == "red"

    tenants.learn("0b", None)
    assert tenants.named("red") is None
    assert not tenants.open, "the last key that goes does not open the door"


def test_a_live_key_that_changes_hands_belongs_to_the_other_tenant():
    tenants = Tenants(live=True)
    tenants.learn("0a", row("k1"))

    tenants.learn("0a", row("k1", "blue"))

    assert tenants.of("Bearer k1").id == "blue"
    assert tenants.named("red") is None


def test_a_key_that_is_gone_twice_is_gone():
    tenants = Tenants(live=True)

    tenants.learn("0a", None)
    tenants.learn("0a", None)

    assert tenants.keys == 0


def test_a_file_and_live_keys_go_together():
    tenants = Tenants.parse(FILE, "f.toml", live=True)
    tenants.learn("0a", row("k9", "green"))

    assert [tenants.of(f"Bearer {key}").id for key in ("k1", "k3", "k9")] == ["red", "blue", "green"]
    assert Tenants.parse("[tenants]", "f.toml", live=True).keys == 0


def test_nothing_that_is_kept_is_a_key():
    tenants = Tenants.parse("[tenants.red]\nkeys = ['secret-in-plain-text']", "f.toml")

    assert "secret-in-plain-text" not in repr(vars(tenants))
