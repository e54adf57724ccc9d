"""Declared workflows: what is left of them, what comes next, and what happens when an agent does something else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.contract.ids import RootId, SessionId, TenantId
from saga.contract.messages import WorkflowDeclared
from saga.contract.workflow_messages import DeclaredEdge, DeclaredNode
from saga.graph import declared as declared_module
from saga.graph.declared import MAX_MISSES, Declarations, Tracked
from saga.graph.plan import MAX_VISITS, Plan

S, CHILD, NOBODY = SessionId("s"), SessionId("child"), SessionId("")


def nodes(*names, **fields):
    """`plan:bash@sub` calls bash in agent sub, `plan` calls whatever, `plan:` calls nothing."""
    made = []
    for text in names:
        name, _, agent = text.partition("@")
        name, colon, tool = name.partition(":")
        made.append(DeclaredNode(id=name, tool=tool if colon else None, agent=agent, **fields))
    return tuple(made)


def edges(*texts):
    """`a>b` is a dependency, `a>b 0.3` a choice."""
    made = []
    for text in texts:
        ends, _, probability = text.partition(" ")
        source, target = ends.split(">")
        made.append(DeclaredEdge(source=source, target=target, probability=float(probability or -1)))
    return tuple(made)


def workflow(some_nodes, some_edges, root="t/r", tenant="t", agent_class=""):
    return WorkflowDeclared(
        tenant=TenantId(tenant), root=RootId(root), agent_class=agent_class, nodes=some_nodes, edges=some_edges
    )


def tracked(some_nodes, some_edges):
    return Tracked(workflow(some_nodes, some_edges))


CHAIN = (
    nodes("plan:search", "write:edit", "check:test", "answer:"),
    edges("plan>write", "write>check", "check>answer"),
)
LOOP = (nodes("think:search", "act:bash", "answer:"), edges("think>act", "act>think 0.75", "act>answer 0.25"))


def test_a_chain_is_followed_to_its_end():
    flow = tracked(*CHAIN)
    assert flow.follows == "unstarted"
    assert flow.remaining_steps() == 4
    left = []
    for tool in ("search", "edit", "test", ""):
        flow.took(S, NOBODY, (tool,) if tool else (), "")
        said = flow.expects(S)
        left.append((said.returns, said.remaining_steps))
        assert flow.follows == "yes"
    assert left == [(1, 3), (1, 2), (1, 1), (0, 0)]
    assert flow.done() == ("plan", "write", "check", "answer")


def test_a_loop_goes_round_as_often_as_its_probability_says():
    flow = tracked(*LOOP)
    flow.took(S, NOBODY, ("search",), "")
    said = flow.expects(S)
    assert said.returns == 1
    # act, then with 3/4 another round of two, on average 4 rounds in all, and the answer
    assert said.remaining_steps == pytest.approx(1 + 3 * 2 + 1, abs=0.05)
    flow.took(S, NOBODY, ("bash",), "")
    assert [(n.node, n.tool, n.probability) for n in flow.next_steps()] == [
        ("think", "search", 0.75),
        ("answer", "", 0.25),
    ]
    flow.took(S, NOBODY, ("search",), "")
    assert flow.expects(S).remaining_steps == pytest.approx(8, abs=0.05), "the second round is as the first"
    flow.took(S, NOBODY, ("bash",), "")
    flow.took(S, NOBODY, (), "")
    assert flow.expects(S).returns == 0


def test_where_branches_meet_again_a_step_runs_once():
    flow = tracked(nodes("a", "b:x", "c:y", "d:z"), edges("a>b", "a>c", "b>d", "c>d"))
    assert flow.remaining_steps() == 4
    flow.took(S, NOBODY, (), "")
    assert flow.expects(S).remaining_steps == 3
    flow.took(S, NOBODY, ("x",), "")
    assert flow.expects(S).remaining_steps == 2, "c and d"
    flow.took(S, NOBODY, ("y",), "")
    assert flow.expects(S).remaining_steps == 1
    flow.took(S, NOBODY, ("z",), "")
    assert flow.expects(S).returns == 0


def test_a_node_may_end_the_workflow_with_what_its_choices_leave():
    flow = tracked(nodes("a", "b"), edges("a>b 0.3"))
    flow.took(S, NOBODY, (), "")
    said = flow.expects(S)
    assert (said.returns, said.remaining_steps) == (pytest.approx(0.3), pytest.approx(0.3))


def test_each_agent_counts_its_own_steps():
    flow = tracked(
        nodes("plan:spawn", "dig:search@digger", "read:fetch@digger", "answer:"),
        edges("plan>dig", "dig>read", "read>answer"),
    )
    flow.took(S, NOBODY, ("spawn",), "")
    said = flow.expects(S)
    assert (said.returns, said.remaining_steps) == (1, 1), "the answer, after what the digger does"
    flow.took(CHILD, S, ("search",), "")
    said = flow.expects(CHILD)
    assert (said.returns, said.remaining_steps) == (1, 1)
    flow.took(CHILD, S, ("fetch",), "")
    assert flow.expects(CHILD).returns == 0
    assert flow.expects(S).returns == 1
    flow.took(S, NOBODY, (), "")
    assert flow.expects(S).returns == 0
    assert flow.follows == "yes"


def test_a_named_node_needs_no_guessing():
    flow = tracked(*CHAIN)
    flow.took(S, NOBODY, ("whatever",), "check")
    assert flow.expects(S).remaining_steps >= 1
    assert flow.done() == ("check",)


def test_an_agent_that_does_something_else_is_lost_and_found_again():
    flow = tracked(*CHAIN)
    flow.took(S, NOBODY, ("search",), "")
    flow.took(S, NOBODY, ("dance",), "")
    assert flow.expects(S) is None
    assert flow.follows == "lost"
    assert flow.remaining_steps() < 0
    flow.took(S, NOBODY, ("test",), "")
    assert flow.follows == "yes"
    assert flow.expects(S).returns == 1


def test_a_declaration_that_nobody_follows_counts_for_nothing():
    flow = tracked(*CHAIN)
    for _ in range(MAX_MISSES):
        flow.took(S, NOBODY, ("dance",), "")
    flow.took(S, NOBODY, ("search",), "")
    assert flow.follows == "no"
    assert flow.expects(S) is None


def test_growth_and_gap_are_told_where_they_were_declared():
    made = (
        DeclaredNode(id="a", gap_s=7.0),
        DeclaredNode(id="b", new_tokens=100.0),
        DeclaredNode(id="c", new_tokens=500.0),
    )
    flow = tracked(made, edges("a>b 0.75", "a>c 0.25"))
    flow.took(S, NOBODY, (), "")
    said = flow.expects(S)
    assert (said.new_tokens, said.gap_s) == (pytest.approx(200.0), 7.0)
    flow.took(S, NOBODY, (), "b")
    assert flow.expects(S).new_tokens < 0


def test_the_shape_counts_what_was_done():
    flow = tracked(*LOOP)
    flow.took(S, NOBODY, ("search",), "")
    shape = flow.shape(RootId("t/r"))
    assert [(n.id, n.count) for n in shape.nodes] == [("think", 1), ("act", 0), ("answer", 0)]
    assert [(e.source, e.target, e.kind, e.probability) for e in shape.edges] == [
        ("think", "act", "declared", 1.0),
        ("act", "think", "declared", 0.75),
        ("act", "answer", "declared", 0.25),
    ]
    assert shape.nodes[2].probability == pytest.approx(1.0, abs=0.01)


def test_declaring_twice_is_declaring_once():
    all_of_them = Declarations()
    all_of_them.declare(workflow(*CHAIN))
    all_of_them.by_root[RootId("t/r")].took(S, NOBODY, ("search",), "")
    all_of_them.declare(workflow(*CHAIN))
    assert all_of_them.by_root[RootId("t/r")].done() == ("plan",)
    all_of_them.declare(workflow(*LOOP))
    assert all_of_them.by_root[RootId("t/r")].done() == ()
    all_of_them.check()
    all_of_them.drop(RootId("t/r"))
    all_of_them.drop(RootId("t/r"))
    all_of_them.check()
    assert not all_of_them.by_root


def test_a_tenant_that_declares_much_loses_its_own_oldest(monkeypatch):
    monkeypatch.setattr(declared_module, "MAX_TENANT_PARTS", 20)
    monkeypatch.setattr(declared_module, "MAX_PARTS", 33)
    all_of_them = Declarations()
    all_of_them.declare(workflow(*CHAIN, root="small/r", tenant="small"))
    for number in range(10):
        all_of_them.declare(workflow(*CHAIN, root=f"big/{number}", tenant="big"))
        all_of_them.check()
    assert list(all_of_them.by_root) == ["small/r", "big/8", "big/9"]
    for number in range(3):
        all_of_them.declare(workflow(*CHAIN, root=f"t{number}/r", tenant=f"t{number}"))
        all_of_them.check()
    assert len(all_of_them.by_root) == 4


def test_a_declared_class_is_the_workflows_own_sessions():
    all_of_them = Declarations()
    all_of_them.declare(workflow(*CHAIN, agent_class="writer"))
    assert all_of_them.class_of(RootId("t/r"), NOBODY, "abc") == "writer"
    assert all_of_them.class_of(RootId("t/r"), S, "abc") == "abc"
    assert all_of_them.class_of(RootId("t/other"), NOBODY, "abc") == "abc"


@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.none() | st.floats(0.0, 1.0)), max_size=40),
    st.lists(st.tuples(st.sampled_from(["s", "child"]), st.sampled_from(["x", "y", ""])), max_size=20),
)
def test_no_graph_breaks_it(count, some_edges, steps):
    """The gateway checks what is declared; what gets past it must do no harm."""
    made = tuple(DeclaredNode(id=f"n{n}", tool=("x", "y", "", None)[n % 4], agent="ab"[n % 2]) for n in range(count))
    ends = tuple(
        DeclaredEdge(source=f"n{a}", target=f"n{b}", probability=-1.0 if p is None else p) for a, b, p in some_edges
    )
    flow = tracked(made, ends)
    for session, tool in steps:
        flow.took(SessionId(session), S if session == "child" else NOBODY, (tool,) if tool else (), "")
        said = flow.expects(SessionId(session))
        if said is not None:
            assert 0.0 <= said.returns <= 1.0
            assert 0.0 <= said.remaining_steps <= MAX_VISITS * count
    flow.shape(RootId("t/r"))
    flow.remaining_steps()


def test_an_empty_plan_says_nothing():
    assert Plan((), ()).visits({}, []) == []
    assert tracked((), ()).remaining_steps() == 0
