"""What the core tells who asks; what it forgets when told to; what a declaration changes in its forecasts."""

import msgspec
import pytest

from saga.contract.ids import GatewayId, PoolId, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.messages import (
    MAX_MESSAGE_BYTES,
    Forecast,
    GraphAsk,
    GraphReset,
    StepFinished,
    WorkflowDeclared,
    encode,
)
from saga.contract.subjects import Subjects
from saga.contract.workflow_messages import DeclaredEdge, DeclaredNode, Shape, ShapeEdge, ShapeNode
from saga.graph.forecast import policy_named
from saga.graph.inspection import answers, near, told, workflow_facts
from saga.graph.partitions import PARTITIONS, partition_of
from saga.graph.state import FORGET_S, GLOBAL, GraphState, Owned, Replayed, model_key
from saga.graph.storing import decode_model
from saga.kernel.effects import Forget, Persist, Publish, Received, Tick

ALL = frozenset(range(PARTITIONS))


def finished(number, root="t/r", *, tools=("bash",), agent_class="coder", tenant="t", at=0.0, gap_s=2.0, node=""):
    return StepFinished(
        step_id=StepId(f"{root}-{number}"),
        attempt=0,
        lease_id=f"lease-{number}",
        worker_id=WorkerId("w"),
        gateway_id=GatewayId("g"),
        tenant=TenantId(tenant),
        root=RootId(root),
        session=SessionId(root),
        pool=PoolId("m"),
        agent_class=agent_class,
        prompt_tokens=100 * number,
        output_tokens=5,
        cached_tokens=0,
        finish_reason="tool_calls",
        tools=tools,
        gap_s=gap_s,
        engine_s=0.5,
        at=at or 1000.0 + number,
        node=node,
    )


def declared(root="t/r", **fields):
    made = {
        "nodes": (
            DeclaredNode(id="look", tool="read", new_tokens=50.0, gap_s=20.0),
            DeclaredNode(id="work", tool="bash", new_tokens=70.0),
            DeclaredNode(id="answer", tool=""),
        ),
        "edges": (
            DeclaredEdge(source="look", target="work"),
            DeclaredEdge(source="work", target="look", probability=0.5),
            DeclaredEdge(source="work", target="answer", probability=0.5),
        ),
    } | fields
    return WorkflowDeclared(tenant=TenantId("t"), root=RootId(root), **made)


def core():
    return GraphState(Subjects("c"), policy_named("saga"))


def tell(state, message, now_s=0.0):
    effects = state.handle(Received(message), now_s)
    state.check()
    return effects


def forecast(effects):
    [said] = [e.message for e in effects if isinstance(e, Publish) and isinstance(e.message, Forecast)]
    return said


def learnt(steps=6, **fields):
    state = core()
    for number in range(1, steps + 1):
        tell(state, finished(number, **fields), float(number))
    return state


def classes(state, tenant="", owned=ALL):
    return [f for a in answers(state, GraphAsk(what="classes", tenant=tenant), "me", owned, 9.0) for f in a.classes]


def show(state, name, tenant="", owned=ALL):
    return answers(state, GraphAsk(what="show", name=name, tenant=tenant), "me", owned, 9.0)


def test_classes_are_listed_with_what_tells_them_apart():
    [coder, everything, tenant] = sorted(classes(learnt()), key=lambda facts: facts.name.split("/")[0] != "class")
    assert coder.name == "class/t/coder"
    assert (coder.samples, coder.tools, coder.tools_seen) == (5, ("bash",), 1)
    assert coder.gap_p50_s == pytest.approx(2.0, rel=0.03)
    assert coder.learnt_until_at == 1006.0
    assert {everything.name, tenant.name} == {GLOBAL, "tenant/t"}


def test_only_what_one_speaks_for_and_only_the_tenants():
    state = learnt()
    tell(state, finished(1, "u/r", tenant="u"), 7.0)
    names = {facts.name for facts in classes(state)}
    mine = frozenset({partition_of("class/t/coder")})
    told_by_me = {facts.name for facts in classes(state, owned=mine)}
    others = {facts.name for facts in classes(state, owned=ALL - mine)}
    assert "class/t/coder" in told_by_me
    assert told_by_me | others == names
    assert not told_by_me & others
    assert {facts.name for facts in classes(state, "u")} == {"class/u/coder", "tenant/u"}


def test_who_knows_nothing_answers_too():
    [answer] = answers(core(), GraphAsk(what="classes"), "me", ALL, 0.0)
    assert (answer.parts, len(answer.partitions)) == (1, PARTITIONS)


@pytest.mark.parametrize("name", ["class/t/coder", "coder", "code", "tenant/t", "t/r", "r"])
def test_a_class_or_workflow_is_found_by_its_name_or_how_it_ends(name):
    [answer] = show(learnt(), name)
    assert len(answer.shapes) + len(answer.workflows) == 1


def test_an_unknown_name_brings_names_like_it():
    [answer] = show(learnt(), "codr")
    assert answer.near == ("class/t/coder",)
    assert near("zzz", []) == ()


def test_a_name_that_two_have_brings_both():
    state = learnt()
    tell(state, finished(1, "u/r", tenant="u"), 7.0)
    assert [shape.name for answer in show(state, "coder") for shape in answer.shapes] == [
        "class/t/coder",
        "class/u/coder",
    ]
    assert [shape.name for answer in show(state, "coder", "u") for shape in answer.shapes] == ["class/u/coder"]


def test_many_classes_are_told_in_parts_that_fit():
    state = core()
    for number in range(450):
        tell(state, finished(1, f"t/{number}", agent_class=f"{number:03}" + "x" * 100, tools=("y" * 128,)), 1.0)
    made = answers(state, GraphAsk(what="classes"), "me", ALL, 2.0)
    assert [answer.part for answer in made] == list(range(made[0].parts))
    assert max(len(encode(answer)) for answer in made) < MAX_MESSAGE_BYTES
    assert {facts.name for answer in made for facts in answer.classes} == set(state.models)
    assert len(made) > 1


def test_a_shape_that_is_too_large_loses_what_tells_least():
    nodes = tuple(ShapeNode(f"tool-{n}-{'x' * 100}", "tool", f"tool-{n}", 100.0 - n, 0.01) for n in range(34))
    edges = tuple(
        ShapeEdge(a.id, b.id, "next", 0.9 if b is nodes[0] else 0.001, 5.0, (1.0,) * 8) for a in nodes for b in nodes
    )
    whole = Shape("class/t/c", "class", "t", nodes, edges, 9)
    fits = told(whole)
    assert len(msgspec.msgpack.encode(fits)) <= 100_000
    assert fits.left_out == len(whole.edges) - len(fits.edges) > 0
    assert {e.source for e in fits.edges if e.target == nodes[0].id} == {n.id for n in nodes}
    small = Shape("class/t/c", "class", "t", nodes[:2], edges[:1], 9)
    assert told(small) is small


def test_a_long_workflow_is_told_by_its_newest_steps():
    state = core()
    root = "t/" + "r" * 120
    for number in range(1, 600):
        tell(state, finished(number, root), float(number))
    facts = workflow_facts(state, RootId(root), 700.0)
    assert facts.steps == 599
    assert facts.shape.nodes[-1].id == f"{root}-599"
    assert len(encode(show(state, root)[0])) < MAX_MESSAGE_BYTES


def test_a_declared_workflows_forecasts_are_of_its_declaration():
    state = learnt(root="t/other", tools=("read",))
    tell(state, declared(), 10.0)
    said = forecast(tell(state, finished(1, tools=("read",)), 11.0))
    assert said.returns == pytest.approx(0.98)
    assert said.remaining_steps == pytest.approx(1 + 2 + 1, abs=0.02), "work; one more round on average; the answer"
    assert said.new_tokens == 70.0
    assert said.gap_p50_s == pytest.approx(2.0, rel=0.03), "what is learnt of gaps is worth more than what is said"
    said = forecast(tell(state, finished(2), 12.0))
    assert said.remaining_steps == pytest.approx(3.0, abs=0.02)
    assert said.new_tokens == 50.0
    said = forecast(tell(state, finished(3, tools=()), 13.0))
    assert (said.returns, said.remaining_steps) == (pytest.approx(0.02), 0.0)
    facts = workflow_facts(state, RootId("t/r"), 14.0)
    assert (facts.follows, facts.done) == ("yes", ("look", "work", "answer"))


def test_a_declared_gap_counts_while_none_is_learnt():
    state = core()
    tell(state, declared())
    said = forecast(tell(state, finished(1, tools=("read",), gap_s=-1.0)))
    assert said.samples == 0
    assert said.gap_p50_s == pytest.approx(20.0)
    assert list(said.gap_quantiles_s) == sorted(said.gap_quantiles_s)


def test_a_workflow_that_does_something_else_is_forecast_by_what_is_learnt():
    with_it, without = learnt(root="t/other"), learnt(root="t/other")
    tell(with_it, declared(), 10.0)
    for number in range(1, 5):
        one = forecast(tell(with_it, finished(number, tools=("dance",)), 11.0 + number))
        other = forecast(tell(without, finished(number, tools=("dance",)), 11.0 + number))
        assert one == other
    assert workflow_facts(with_it, RootId("t/r"), 20.0).follows == "no"


def test_a_named_node_is_where_the_workflow_stands():
    state = core()
    tell(state, declared())
    tell(state, finished(1, tools=("dance",), node="work"))
    assert workflow_facts(state, RootId("t/r"), 1.0).done == ("work",)


def test_a_declared_class_is_learnt_under_its_name():
    state = core()
    tell(state, declared(agent_class="writer"))
    tell(state, finished(1, tools=("read",)))
    assert "class/t/writer" in state.models
    assert "class/t/coder" not in state.models


def test_a_declaration_ends_with_its_workflow():
    state = core()
    tell(state, declared())
    tell(state, declared("t/silent"))
    tell(state, msgspec.structs.replace(finished(1), final=True), 1.0)
    assert list(state.declared.by_root) == ["t/silent"]
    state.handle(Tick(), 2.0 + FORGET_S)
    state.check()
    assert not state.declared.by_root
    assert not state.workflows


def test_a_reset_forgets_one_class_here_and_in_storage():
    state = learnt()
    effects = tell(state, GraphReset(name="class/t/coder"), 7.0)
    assert [e.key for e in effects if isinstance(e, Forget)] == [model_key("class/t/coder")]
    assert set(state.models) == {GLOBAL, "tenant/t"}
    again = tell(state, GraphReset(name="class/t/coder"), 8.0)
    assert [e.key for e in again if isinstance(e, Forget)] == [model_key("class/t/coder")], "stored it may still be"
    tell(state, finished(7), 9.0)
    assert classes(state)[1].samples <= 1


def test_only_the_owner_forgets_in_storage():
    state = learnt()
    state.handle(Owned(ALL - {partition_of("class/t/coder")}), 6.5)
    effects = tell(state, GraphReset(name="class/t/coder"), 7.0)
    assert [e for e in effects if isinstance(e, Forget)] == []
    assert "class/t/coder" not in state.models


def test_after_a_reset_of_all_no_replay_teaches_again_what_was_forgotten():
    state = learnt()
    effects = tell(state, GraphReset(name=""), 7.0)
    [kept] = [decode_model(e.value) for e in effects if isinstance(e, Persist)]
    assert (kept.name, kept.gaps.samples, kept.outcomes, kept.learnt_until_at) == (GLOBAL, 0, 0, 1006.0)
    assert {e.key for e in effects if isinstance(e, Forget)} == {model_key("class/t/coder"), model_key("tenant/t")}
    for number in range(1, 7):
        state.handle(Replayed(finished(number, "t/again", at=1000.0 + number)), 8.0)
    assert all(model.gaps.samples == 0 for model in state.models.values())
