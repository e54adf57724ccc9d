"""Declared workflows at the door: what is taken, and what is refused with the node and what to change."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.contract.ids import TenantId
from saga.contract.messages import MAX_MESSAGE_BYTES, encode
from saga.contract.workflow_messages import MAX_DECLARED_EDGES, MAX_DECLARED_NODES
from saga.gateway import declaring
from saga.gateway.api_errors import ApiError
from saga.gateway.declaring import MAX_DEADLINES, Deadlines, parse

T = TenantId("t")


def declared(**fields):
    return parse(json.dumps(fields).encode(), T, "fresh")


def refused(**fields):
    with pytest.raises(ApiError) as caught:
        declared(**fields)
    return caught.value


def nodes(*names):
    return [{"id": name} for name in names]


def edge(source, target, probability=None):
    return {"from": source, "to": target} | ({} if probability is None else {"probability": probability})


def test_everything_that_can_be_said():
    name, message = declared(
        id="release",
        deadline_s=60,
        nodes=[{"id": "a", "tool": "bash", "agent": "x", "new_tokens": 5, "gap_s": 2.5}, {"id": "b", "tool": ""}],
        edges=[edge("a", "b", 0.5)],
        **{"class": "coder"},
    )
    assert name == "release"
    assert (message.tenant, message.root, message.agent_class, message.deadline_s) == ("t", "t/release", "coder", 60)
    first, second = message.nodes
    assert (first.tool, first.agent, first.new_tokens, first.gap_s) == ("bash", "x", 5, 2.5)
    assert (second.tool, second.new_tokens, second.gap_s) == ("", -1, -1)
    assert message.edges[0].probability == 0.5


def test_a_workflow_without_an_id_gets_one():
    assert declared(nodes=nodes("a"))[0] == "fresh"


def test_a_long_id_is_the_same_root_as_in_the_header():
    long = "x" * 128
    name, message = declared(id=long, nodes=nodes("a"))
    assert name == long
    assert message.root.startswith("t/sha256:")


def test_an_agents_loop_is_no_cycle():
    assert declared(nodes=nodes("a", "b"), edges=[edge("a", "b"), edge("b", "a", 0.9)])[1].edges
    assert declared(nodes=nodes("a"), edges=[edge("a", "a", 0.5)])[1].edges


@pytest.mark.parametrize("again", [None, 1.0])
def test_a_cycle_that_never_ends_is_named(again):
    said = refused(
        nodes=nodes("z", "a", "b", "c"), edges=[edge("z", "a"), edge("a", "b"), edge("b", "c"), edge("c", "a", again)]
    )
    assert (said.status, said.code, said.param) == (422, "cycle", "edges")
    assert " > ".join(said.message.split(": ", 2)[2].split(".")[0].split(" > ")[:4]) in (
        "a > b > c > a",
        "b > c > a > b",
        "c > a > b > c",
    )
    assert "probability below 1" in said.message


@pytest.mark.parametrize(
    ("fields", "code", "param", "says"),
    [
        ({"nodes": []}, "too_large", "nodes", "1 to 128"),
        ({"nodes": nodes("a"), "edges": [edge("a", "a")]}, "cycle", "edges", "a > a"),
        ({"nodes": nodes("plan"), "edges": [edge("plam", "plan")]}, "unknown_node", "edges[0].from", "as 'plan'"),
        ({"nodes": nodes("plan"), "edges": [edge("plan", "x" * 500)]}, "unknown_node", "edges[0].to", "as 'plan'"),
        ({"nodes": nodes("a", "b", "a")}, "duplicate_node", "nodes[2].id", "nodes[0]"),
        (
            {"nodes": nodes("a", "b"), "edges": [edge("a", "b"), edge("a", "b", 0.5)]},
            "duplicate_edge",
            "edges[1]",
            "from 'a' to 'b'",
        ),
        (
            {"nodes": nodes("a", "b", "c"), "edges": [edge("a", "b", 0.7), edge("a", "c", 0.7)]},
            "invalid_probability",
            "edges",
            "node 'a'",
        ),
        (
            {"nodes": nodes("a", "x", "y"), "edges": [edge("x", "y", 0.5), edge("y", "x", 0.5)]},
            "unreachable_node",
            "nodes[1]",
            "node 'x'",
        ),
        ({"nodes": nodes("a", "b"), "edges": [edge("a", "b", 1.5)]}, "invalid_value", "edges[0].probability", "1.5"),
        ({"nodes": nodes("a", "b"), "edges": [edge("a", "b", 0)]}, "invalid_value", "edges[0].probability", "above 0"),
        ({"nodes": [{"id": ""}]}, "invalid_value", "nodes[0].id", "1 to 64"),
        ({"nodes": nodes("x" * 65)}, "invalid_value", "nodes[0].id", "65"),
        ({"nodes": nodes("a\n")}, "invalid_value", "nodes[0].id", "printable"),
        ({"nodes": [{"id": "a", "gap_s": -1}]}, "invalid_value", "nodes[0].gap_s", "0 or more"),
        ({"nodes": [{"id": "a", "new_tokens": 1e12}]}, "invalid_value", "nodes[0].new_tokens", "at most"),
        ({"nodes": nodes("a"), "deadline_s": 0}, "invalid_value", "deadline_s", "above 0"),
        ({"nodes": nodes("a"), "id": " "}, "invalid_value", "id", "1 to 128"),
        ({"nodes": nodes("a"), "id": "x" * 129}, "invalid_value", "id", "129"),
        ({"nodes": nodes("a"), "class": "no/slash"}, "invalid_value", "class", "letters"),
        ({"nodes": [{"id": "a", "tol": "bash"}]}, "invalid_type", "nodes[0]", "tol"),
        ({"nodes": [{}]}, "missing_required_parameter", "nodes[0].id", "nodes[0].id"),
        ({}, "missing_required_parameter", "nodes", "nodes"),
        ({"nodes": "many"}, "invalid_type", "nodes", "nodes"),
    ],
)
def test_what_is_wrong_is_named(fields, code, param, says):
    said = refused(**fields)
    assert (said.status, said.code, said.param) == (422, code, param)
    assert says in said.message


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"nodes":[{"id":"\xff"}]}'])
def test_what_is_no_json_is_another_error(body):
    with pytest.raises(ApiError) as caught:
        parse(body, T, "fresh")
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


def test_sizes_are_bounded_and_the_largest_fits_into_a_message():
    said = refused(nodes=nodes(*(f"n{n}" for n in range(MAX_DECLARED_NODES + 1))))
    assert (said.status, said.code) == (422, "too_large")
    names = [f"{n:03}" + "ü" * 61 for n in range(MAX_DECLARED_NODES)]
    ends = [(a, b) for n, a in enumerate(names) for b in names[n + 1 : n + 6]][:MAX_DECLARED_EDGES]
    made = [{"id": name, "tool": "ö" * 128, "agent": "ä" * 64, "new_tokens": 1.5, "gap_s": 2.5} for name in names]
    _, message = declared(id="x" * 128, nodes=made, edges=[edge(a, b) for a, b in ends])
    assert len(message.edges) == MAX_DECLARED_EDGES
    assert len(encode(message)) < MAX_MESSAGE_BYTES
    said = refused(nodes=nodes("a"), edges=[edge("a", "a", 0.5)] * (MAX_DECLARED_EDGES + 1))
    assert (said.status, said.code, said.param) == (422, "too_large", "edges")


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.none() | st.floats(0.1, 1.0)), max_size=12),
)
def test_what_is_taken_ends(count, ends):
    """Of a graph that is not refused, the dependencies form no cycle."""
    try:
        _, message = declared(nodes=nodes(*map(str, range(count))), edges=[edge(str(a), str(b), p) for a, b, p in ends])
    except ApiError:
        return
    left = {(e.source, e.target) for e in message.edges if not 0 <= e.probability < 1}
    while left:
        free = {source for source, _ in left} - {target for _, target in left}
        assert free, f"a cycle in {left}"
        left = {(a, b) for a, b in left if a not in free}


def test_deadlines_are_remembered_and_bounded():
    known = Deadlines()
    for number in range(MAX_DEADLINES + 2):
        known.hear(declared(id=str(number), nodes=nodes("a"), deadline_s=number + 1)[1])
    assert known.of("t/0") == known.of("t/1") == 0.0
    assert known.of("t/2") == 3.0
    known.hear(declared(id="2", nodes=nodes("a"))[1])
    assert known.of("t/2") == 0.0, "declared anew, without one"


def test_an_id_of_a_path_is_checked_like_that_of_a_body():
    assert declaring.workflow_id(" a b ") == "a b"
    with pytest.raises(ApiError):
        declaring.workflow_id("x" * 200)
