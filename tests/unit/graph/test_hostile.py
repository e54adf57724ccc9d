"""Garbage and malice: models stay sane, and nobody crowds out another."""

import math

import msgspec
import pytest
from graph_story import core, finished, ready, tell

from saga.contract.ids import GatewayId, RootId, SessionId, StepId, TenantId
from saga.contract.messages import StepCancelled
from saga.graph import following, shelf
from saga.graph.bounds import MAX_GROWTH_TOKENS, MAX_ID_CHARS, newest
from saga.graph.models import MAX_CELLS, MAX_CHILDREN, MAX_EDGES, MAX_TOOLS, OTHER, Model
from saga.graph.situation import CONTEXTS, TOOL_CHARS
from saga.graph.sketch import MAX_BUCKETS, Sketch
from saga.graph.state import GLOBAL, Replayed, model_key
from saga.graph.storing import MAX_BYTES, decode_model, encode_model
from saga.kernel.effects import Forget, Persist, Tick

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("value", [NAN, INF, -INF, -5.0, 1e300])
def test_durations_that_are_none_teach_nothing_or_are_bounded(value):
    state = core()
    for number in range(50):
        tell(state, ready(str(number), gap_s=value, waited_s=value), float(number))
        tell(state, finished(str(number), gap_s=value, engine_s=value, modelled_s=value, at=value), number + 0.5)
    state.check()
    model = state.models["class/t/coder"]
    assert 0 <= model.modelled_s.value <= 3_600.0
    assert math.isfinite(model.learnt_until_at)
    assert decode_model(encode_model(model)) == model
    for number in range(50, 70):
        tell(state, finished(str(number), gap_s=2.0, at=1e9 + number), float(number))
    assert state.models[GLOBAL].learnt_until_at == pytest.approx(1e9 + 69) or value == 1e300


@pytest.mark.parametrize("tokens", [-(2**62), -1, 2**62])
def test_token_counts_are_bounded(tokens):
    state = core()
    for number in range(20):
        tell(state, finished(str(number), prompt_tokens=tokens if number % 2 else 100, output_tokens=tokens))
    assert state.models[GLOBAL].growth_tokens.value <= MAX_GROWTH_TOKENS
    assert state.workflow_shape(RootId("r")) is not None


def test_a_step_far_in_the_future_does_not_hide_those_after_it():
    assert newest(1e9, 4e9) == 1e9 + 24 * 3_600
    assert newest(1e9, 5e9) == 1e9
    assert newest(1e9, NAN) == 1e9
    assert newest(0.0, 1e9) == 1e9
    state = core()
    tell(state, finished("1", at=1e9))
    tell(state, finished("2", at=4e9))
    state.handle(Replayed(finished("3", at=1e9 + 48 * 3_600)), 1.0)
    assert state.models[GLOBAL].gaps.samples == 2


def test_time_that_runs_backwards_stands_still():
    state = core()
    for number in range(20):
        tell(state, ready(str(number)), 1_000.0 - 10 * number)
        tell(state, finished(str(number), f"r{number % 3}", gap_s=-1.0), 999.0 - 10 * number)
        state.check()
    assert state.handle(Tick(), -5.0) is not None
    state.check()


def test_huge_ids_are_not_remembered():
    state = core()
    long = "x" * (MAX_ID_CHARS + 1)
    for message in (
        finished(long),
        finished("1", long),
        finished("1", tenant=long),
        finished("1", session=long),
        finished("1", agent_class=long),
        finished("1", parent=long),
        ready(long),
        ready("1", long),
    ):
        assert tell(state, message) == []
    assert not state.workflows
    assert not state.models


def test_a_cancel_of_an_unknown_workflow_is_nothing():
    state = core()
    cancelled = StepCancelled(
        step_id=StepId("1"),
        attempt=0,
        gateway_id=GatewayId("g"),
        tenant=TenantId("t"),
        root=RootId("nobody"),
        session=SessionId("s"),
    )
    assert tell(state, cancelled) == []
    assert not state.workflows


def test_a_workflow_is_its_tenants_alone():
    state = core()
    tell(state, finished("1", tenant="a"), 1.0)
    assert tell(state, finished("2", tenant="b"), 2.0) == []
    tell(state, ready("3", tenant="b"), 3.0)
    assert len(state.workflows[RootId("r")].nodes) == 1
    assert "tenant/b" not in state.models
    assert state.models["tenant/a"].gaps.samples == 0


def test_any_number_of_tool_names_leaves_models_small_and_known_tools_known():
    state = core()
    for number in range(400):
        tell(state, finished(f"known-{number}", "other", tenant="honest", gap_s=3.0))
    for number in range(1_500):
        tool = f"{number}-{'x' * 300}"
        tell(state, finished(str(number), tools=(tool,) if number % 3 else (tool, "bash", "read"), gap_s=0.01))
        if number % 10 == 0:
            tell(state, finished(f"b{number}", gap_s=0.5))
    state.check()
    for model in state.models.values():
        assert len(model.tools) <= MAX_TOOLS + 1
        assert max(map(len, model.tools)) <= TOOL_CHARS
        assert model.cells == sum(len(tool.cells) for tool in model.tools.values()) <= MAX_CELLS
        assert max(len(tool.next) for tool in model.tools.values()) <= MAX_EDGES
        assert len(encode_model(model)) <= MAX_BYTES
    assert "bash" in state.models["class/t/coder"].tools
    assert {"bash", OTHER} <= state.models[GLOBAL].tools.keys()
    assert len(state.models[GLOBAL].tools) <= 5, "names that a tenant does not call often have none among all tenants"
    [said] = tell(state, finished("last", "other", tenant="honest", gap_s=3.0))
    assert said.gap_p50_s == pytest.approx(3.0, rel=0.03)


def test_reserved_names_are_no_tools():
    state = core()
    tell(state, finished("1", tools=("~start",)))
    tell(state, finished("2", tools=("~other",)))
    assert {"start", "other"} <= state.models["class/t/coder"].tools.keys()


def test_one_tenants_classes_do_not_crowd_out_anothers(monkeypatch):
    monkeypatch.setattr(shelf, "MAX_CLASSES", 8)
    monkeypatch.setattr(shelf, "MAX_MODELS", 12)
    state = core()
    for name in ("one", "two", "three"):
        tell(state, finished(f"h{name}", f"root of {name}", tenant="honest", agent_class=name))
    for number in range(200):
        tell(state, finished(str(number), f"r{number}", tenant="flood", agent_class=f"c{number}"))
        state.check()
    assert {"class/honest/one", "class/honest/two", "class/honest/three"} <= state.models.keys()
    assert sum(name.startswith("class/flood/") for name in state.models) == 8
    for number in range(20):
        tell(state, finished(f"x{number}", f"x{number}", tenant=f"more-{number % 2}", agent_class=f"c{number}"))
        state.check()
    assert {"class/honest/one", "class/honest/two", "class/honest/three"} <= state.models.keys()
    effects = state.handle(Tick(), 100.0)
    assert Forget(model_key("class/flood/c0")) in effects
    assert Forget(model_key("class/honest/one")) not in effects


def test_tenants_are_bounded(monkeypatch):
    monkeypatch.setattr(shelf, "MAX_TENANTS", 5)
    state = core()
    for number in range(30):
        tell(state, finished(str(number), f"r{number}", tenant=f"t{number}"))
        state.check()
    assert len(state.models) == 11
    assert GLOBAL in state.models


def test_one_tenants_workflows_do_not_crowd_out_anothers(monkeypatch):
    monkeypatch.setattr(following, "MAX_WORKFLOWS", 10)
    state = core()
    for number in range(3):
        tell(state, finished(f"h{number}", f"h{number}", tenant="honest"))
    for number in range(100):
        tell(state, finished(str(number), f"r{number}", tenant="flood"))
        state.check()
    assert {"h0", "h1", "h2"} <= state.workflows.keys()
    assert len(state.workflows) == 10


def test_nodes_of_all_workflows_are_bounded(monkeypatch):
    monkeypatch.setattr(following, "MAX_ALL_NODES", 100)
    state = core()
    for number in range(600):
        tell(state, finished(str(number), f"r{number % 7}"), float(number))
        state.check()
    shape = state.workflow_shape(RootId("r1"))
    assert shape.samples == 86
    assert len(shape.nodes) < 86


def test_children_of_a_tool_are_bounded():
    state = core()
    tell(state, finished("1"))
    for number in range(20):
        tell(state, finished(f"c{number}", session=f"c{number}", parent="r", agent_class=f"sub-{number}"))
    children = state.models["class/t/coder"].tools["bash"].children
    assert len(children) == MAX_CHILDREN + 1
    assert sum(children.values()) == 20


def test_what_is_stored_is_small_whatever_was_learnt_and_can_be_read():
    model = Model("class/t/coder")
    for number in range(30_000):
        follows = model.tool(f"tool-{number % 30}-{'x' * 50}")
        model.saw_outcome(follows, number % 300 + 1, number * 31 % CONTEXTS, number * 7_919 % MAX_BUCKETS, ended=False)
        edge = follows.edge(number * 17 % 29)
        edge.gaps = edge.gaps or Sketch()
        edge.gaps.add_bucket(number * 7_919 % MAX_BUCKETS)
        edge.count += 1
    whole = len(msgspec.msgpack.encode(model))
    assert whole > MAX_BYTES
    value = encode_model(model)
    size = len(value)
    assert size <= MAX_BYTES
    again = decode_model(value)
    assert again.gaps == model.gaps
    assert again.tools.keys() <= model.tools.keys()
    assert len(again.tools) > 5
    assert again.cells == sum(len(tool.cells) for tool in again.tools.values())
    assert decode_model(b"from another version") is None
    assert decode_model(value.replace(b"model-2", b"model-1")) is None


def test_storing_many_models_does_not_hold_up_forecasts():
    state = core()
    for number in range(100):
        tell(state, finished(str(number), f"r{number}", agent_class=f"c{number}"))
    stored, now_s = set(), 10.0
    for _ in range(20):
        persists = [e.key for e in state.handle(Tick(), now_s) if isinstance(e, Persist)]
        assert len(persists) <= 16
        stored |= set(persists)
        now_s += 0.02
    assert len(stored) == 102
