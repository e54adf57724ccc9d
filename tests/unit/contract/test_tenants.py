"""Rows that operators write: what is no row is refused by name, whoever wrote it."""

import pytest

from saga.contract.tenants import (
    MAX_QUOTA,
    BadRowError,
    KeyRow,
    TenantTerms,
    check_tenant,
    read_key,
    read_terms,
    write_row,
)

DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b"\xff", ""),
        (b'{"weight": -1}', "weight=-1 must be positive"),
        (b'{"weight": 0}', "weight=0 must be positive"),
        (b'{"weight": "heavy"}', "weight"),
        (b'{"running_steps": -3}', "running_steps=-3 must be 0 or more"),
        (b'{"running_steps": 1.5}', "running_steps"),
        (b'{"running_steps": true}', "running_steps"),
        (b'{"kv_tokens": 9000000000000000}', f"at most {MAX_QUOTA}"),
        (b'{"shoe_size": 43}', "shoe_size"),
        (b"[" * 100_000, ""),
    ],
)
def test_a_row_that_says_what_cannot_be_is_refused_with_what_is_wrong(row, told):
    with pytest.raises(BadRowError) as raised:
        read_terms(row)

    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("weight", [float("inf"), float("nan"), -0.5])
def test_a_weight_is_positive_and_finite(weight):
    with pytest.raises(ValueError, match="must be positive"):
        TenantTerms(weight=weight)


def test_a_row_says_only_what_was_set_and_null_is_no_limit():
    terms = TenantTerms(weight=2.0, running_steps=0)

    assert write_row(terms) == b'{"weight":2.0,"running_steps":0}'
    assert read_terms(write_row(terms)) == terms
    assert read_terms(b'{"running_steps": null}') == TenantTerms()


def test_zero_closes_a_tenant_except_that_of_waiting():
    assert TenantTerms(waiting_steps=0).closed() == ""
    assert TenantTerms(output_tokens_per_minute=0).closed() == "output_tokens_per_minute"
    assert TenantTerms(running_steps=1).closed() == ""


@pytest.mark.parametrize("name", ["", "a b", "a.b", "ä", "x" * 33, "a/b", "*"])
def test_a_tenants_name_is_short_and_plain(name):
    with pytest.raises(ValueError, match="1 to 32 letters"):
        check_tenant(name)


@pytest.mark.parametrize(
    "row",
    [
        b'{"tenant": "red"}',
        b'{"tenant": "red", "sha256": "abc"}',
        b'{"tenant": "r d", "sha256": "%s"}' % DIGEST.encode(),
        b'{"tenant": "red", "sha256": "%s", "admin": true}' % DIGEST.encode(),
    ],
)
def test_a_key_that_cannot_be_read_is_none(row):
    with pytest.raises(BadRowError):
        read_key(row)


def test_a_key_row_comes_back_as_it_was():
    row = KeyRow(tenant=check_tenant("red"), sha256=DIGEST, made_at=1.5, note="CI")

    assert read_key(write_row(row)) == row
