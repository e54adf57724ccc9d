"""The graph's core: steps in, forecasts and models out."""

import pytest

from saga.contract.ids import GatewayId, PoolId, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.messages import Forecast, StepCancelled, StepFinished, StepReady, WorkflowEnded
from saga.contract.subjects import Subjects
from saga.graph import following, shelf
from saga.graph.forecast import policy_named
from saga.graph.partitions import PARTITIONS, partition_of
from saga.graph.state import FORGET_S, GLOBAL, PERSIST_EVERY_S, GraphState, Loaded, Owned, Replayed, model_key
from saga.graph.storing import decode_model, encode_model
from saga.kernel.effects import Persist, Publish, Received, Tick, WakeAt

W = WorkerId("w")
SUBJECTS = Subjects("c")


def core():
    return GraphState(SUBJECTS, policy_named("saga"))


def ready(step, session="s", root="r", *, gap_s=-1.0, waited_s=0.0, parent=""):
    return StepReady(
        step_id=StepId(step),
        attempt=0,
        gateway_id=GatewayId("g"),
        tenant=TenantId("t"),
        root=RootId(root),
        session=SessionId(session),
        parent=SessionId(parent),
        pool=PoolId("m"),
        agent_class="coder",
        prompt_tokens=10,
        max_output_tokens=10,
        page_tokens=16,
        gap_s=gap_s,
        waited_s=waited_s,
    )


def finished(
    step, session="s", root="r", *, tools=("bash",), final=False, gap_s=-1.0, prompt=100, at=0.0, parent="", work_s=0.25
):
    return StepFinished(
        step_id=StepId(step),
        attempt=0,
        lease_id=f"lease-{step}",
        worker_id=W,
        gateway_id=GatewayId("g"),
        tenant=TenantId("t"),
        root=RootId(root),
        session=SessionId(session),
        parent=SessionId(parent),
        pool=PoolId("m"),
        agent_class="coder",
        prompt_tokens=prompt,
        output_tokens=5,
        cached_tokens=0,
        finish_reason="tool_calls",
        tools=tools,
        final=final,
        gap_s=gap_s,
        engine_s=0.5,
        modelled_s=work_s,
        at=at,
    )


def tell(state, message, now_s):
    effects = state.handle(Received(message), now_s)
    state.check()
    return effects


def forecasts(effects):
    return [e.message for e in effects if isinstance(e, Publish) and isinstance(e.message, Forecast)]


def stored(effects):
    return {e.key: decode_model(e.value) for e in effects if isinstance(e, Persist)}


def test_a_step_is_followed_by_a_forecast_for_its_worker():
    effects = tell(core(), finished("1"), 0.0)
    [publish] = [e for e in effects if isinstance(e, Publish)]
    assert publish.subject == SUBJECTS.forecast(W)
    said = publish.message
    assert (said.root, said.session, said.step_id, said.samples) == ("r", "s", "1", 0)
    assert 0 <= said.returns <= 1


def test_gaps_are_learnt_once_from_what_the_gateway_saw():
    state = core()
    tell(state, finished("1"), 0.0)
    for _ in range(3):
        tell(state, ready("2", gap_s=4.0), 5.0)
    tell(state, finished("2", gap_s=4.0), 6.0)
    model = state.models["class/t/coder"]
    assert model.gaps.samples == 1
    assert model.tools["bash"].returned == 1
    [said] = forecasts(tell(state, finished("3", gap_s=4.0), 8.0))
    assert said.samples == 2
    assert said.gap_p50_s == pytest.approx(4.0, rel=0.03)


def test_a_gap_that_the_gateway_did_not_see_is_measured():
    state = core()
    tell(state, finished("1"), 10.0)
    tell(state, ready("2", waited_s=0.5), 13.5)
    [said] = forecasts(tell(state, finished("2"), 14.0))
    assert said.gap_p50_s == pytest.approx(3.0, rel=0.03)


def test_an_end_that_is_told_twice_counts_once():
    state = core()
    tell(state, finished("1"), 0.0)
    assert forecasts(tell(state, finished("1"), 0.1)) == []
    tell(state, finished("2", final=True), 1.0)
    tell(state, finished("2", final=True), 1.1)
    assert len(state.workflows) == 0
    assert state.models[GLOBAL].ended == [0, 1]


def test_a_final_step_gets_no_forecast_and_ends_all_sessions():
    state = core()
    tell(state, finished("1"), 0.0)
    tell(state, finished("c1", "child", parent="s"), 0.5)
    assert forecasts(tell(state, finished("2", final=True), 1.0)) == []
    assert len(state.workflows) == 0
    assert sum(state.models["class/t/coder"].ended) == 2


def test_the_graph_of_a_workflow_has_steps_gaps_and_children():
    state = core()
    tell(state, finished("1", tools=("bash", "read")), 0.0)
    tell(state, ready("2", gap_s=2.0), 2.0)
    tell(state, finished("2"), 3.0)
    tell(state, ready("c1", "child", parent="s"), 3.5)
    tell(state, finished("c1", "child", parent="s"), 4.0)
    nodes = state.workflows[RootId("r")].nodes
    assert nodes[StepId("1")].source == ""
    assert nodes[StepId("1")].tool == "bash+read"
    assert (nodes[StepId("2")].kind, nodes[StepId("2")].source) == ("next", "1")
    assert nodes[StepId("2")].measured() == (2.0, 0.5, 100, 5)
    assert (nodes[StepId("c1")].kind, nodes[StepId("c1")].source) == ("spawn", "2")


def test_only_owned_partitions_speak_but_all_learn():
    state = core()
    mine = partition_of("r")
    state.handle(Owned(frozenset(range(PARTITIONS)) - {mine}), 0.0)
    assert forecasts(tell(state, finished("1"), 0.0)) == []
    assert state.models[GLOBAL].modelled_s.weight == 1
    state.handle(Owned(frozenset({mine})), 1.0)
    assert len(forecasts(tell(state, finished("2", gap_s=1.0), 2.0))) == 1


def woken(effects):
    return [effect.at_s for effect in effects if isinstance(effect, WakeAt)]


def test_models_are_stored_every_ten_seconds_at_most_and_loaded_again():
    state = core()
    writes = []
    due_s = []
    for number in range(60):
        now_s = number / 2
        due_s += woken(tell(state, finished(str(number), gap_s=0.1, at=1000.0 + number), now_s))
        while due_s and min(due_s) <= now_s:
            due_s.remove(min(due_s))
            effects = state.handle(Tick(), now_s)
            writes += stored(effects).keys()
            due_s += woken(effects)
    assert writes.count(model_key("class/t/coder")) == 2  # at 10 and a little after 20 s
    models = stored(state.settle())
    again = core()
    for effect in (*state.settle(), *[Persist(k, encode_model(m)) for k, m in models.items()]):
        again.handle(Loaded(effect.value), 0.0)
    assert again.models["class/t/coder"] == state.models["class/t/coder"]
    again.handle(Loaded(b"garbage"), 0.0)
    assert stored(again.settle()) == {}


def test_a_replay_rebuilds_workflows_and_teaches_nothing_twice():
    before = core()
    steps = [finished(str(n), gap_s=2.0, at=100.0 + n) for n in range(4)]
    for step in steps[:3]:
        tell(before, step, 0.0)
    after = core()
    for effect in before.handle(Tick(), 5.0):
        if isinstance(effect, Persist):
            after.handle(Loaded(effect.value), 0.0)
    for step in steps:
        assert forecasts(after.handle(Replayed(step), 0.0)) == []
    assert after.workflows[RootId("r")].sessions[SessionId("s")].steps == 4
    assert after.models[GLOBAL].gaps.samples == 3
    assert len(forecasts(tell(after, finished("9", gap_s=2.0, at=200.0), 1.0))) == 1


def test_silent_workflows_are_forgotten_and_count_as_ended():
    state = core()
    tell(state, finished("1"), 0.0)
    tell(state, finished("x", "y", "z"), 100.0)
    cancelled = StepCancelled(
        step_id=StepId("2"),
        attempt=0,
        gateway_id=GatewayId("g"),
        tenant=TenantId("t"),
        root=RootId("r"),
        session=SessionId("s"),
    )
    tell(state, cancelled, 200.0)
    state.handle(Tick(), 100.0 + FORGET_S)
    state.check()
    assert list(state.workflows) == ["r"]
    assert state.models[GLOBAL].ended == [1]


def test_workflows_and_models_are_bounded(monkeypatch):
    monkeypatch.setattr(following, "MAX_WORKFLOWS", 5)
    monkeypatch.setattr(shelf, "MAX_MODELS", 4)
    state = core()
    for number in range(20):
        step = finished(str(number), f"s{number}", f"r{number}")
        tell(state, StepFinished(**{**_fields(step), "agent_class": f"class-{number}"}), float(number))
    assert len(state.workflows) == 5
    assert sorted(state.models) == [GLOBAL, *(f"class/t/class-{n}" for n in range(16, 20)), "tenant/t"]


def _fields(message):
    return {name: getattr(message, name) for name in message.__struct_fields__}


def test_it_asks_to_be_woken_when_there_is_something_to_store_or_to_forget():
    state = core()
    assert woken(tell(state, finished("1"), 0.0)) == [PERSIST_EVERY_S]
    assert woken(tell(state, finished("2"), 0.5)) == []
    assert woken(state.handle(Tick(), PERSIST_EVERY_S)) == [0.5 + FORGET_S]
    assert woken(tell(state, finished("3"), 100.0)) == [100.0 + PERSIST_EVERY_S]
    assert woken(state.handle(Tick(), 100.0 + PERSIST_EVERY_S)) == [100.0 + FORGET_S]
    assert woken(state.handle(Tick(), 100.0 + FORGET_S)) == []
    assert state.workflows == {}


def test_an_answer_without_a_tool_is_the_end_until_the_session_returns():
    state = core()
    tell(state, ready("1"), 0.0)
    tell(state, finished("1"), 1.0)
    tell(state, ready("2"), 2.0)
    tell(state, finished("2", tools=()), 3.0)
    everything = state.models[GLOBAL]
    assert everything.ended[1] == 1, "learnt at once, not after an hour of silence"
    tell(state, ready("3"), 60.0)
    assert sum(everything.ended) == 0
    assert everything.tools[""].returned == 1
    assert everything.tools[""].ended == 0


def test_an_end_is_counted_once():
    state = core()
    tell(state, ready("1"), 0.0)
    tell(state, finished("1", tools=()), 1.0)
    state.handle(Tick(), 2.0 + FORGET_S)
    assert state.workflows == {}
    assert sum(state.models[GLOBAL].ended) == 1


def test_a_call_that_was_on_its_way_takes_the_end_back():
    state = core()
    tell(state, ready("1"), 0.0)
    tell(state, ready("2"), 0.1)
    tell(state, finished("1", tools=()), 1.0)
    tell(state, finished("2"), 2.0)
    tell(state, ready("3"), 3.0)
    assert sum(state.models[GLOBAL].ended) == 0
    assert state.models[GLOBAL].tools[""].ended == 0


def ended(root="r", session="", tenant="t"):
    return WorkflowEnded(tenant=TenantId(tenant), root=RootId(root), session=SessionId(session))


def ends_of(state):
    """Ends learnt, of all sessions together."""
    return sum(follows.ended for follows in state.models[GLOBAL].tools.values()) if GLOBAL in state.models else 0


def test_a_workflow_that_its_client_ends_is_learnt_as_over_and_not_followed_any_more():
    state = core()
    tell(state, finished("a"), 1.0)  # in the middle of its work: it called a tool
    before = ends_of(state)

    tell(state, ended(), 2.0)

    assert RootId("r") not in state.workflows
    assert ends_of(state) == before + 1


def test_a_session_that_its_client_ends_is_learnt_as_over_and_its_workflow_goes_on():
    state = core()
    tell(state, finished("a"), 1.0)
    tell(state, finished("b", "child", parent="s"), 2.0)
    before = ends_of(state)

    for _ in range(2):
        tell(state, ended(session="child"), 3.0)

    assert RootId("r") in state.workflows
    assert ends_of(state) == before + 1


def test_nobody_ends_what_is_not_theirs():
    state = core()
    tell(state, finished("a"), 1.0)

    for word in (ended("other"), ended(tenant="u"), ended(session="none")):
        tell(state, word, 2.0)

    assert RootId("r") in state.workflows


def test_work_is_what_engines_have_of_it_not_how_long_it_takes():
    state = core()
    state.handle(Owned(frozenset(range(PARTITIONS))), 0.0)
    for number in range(30):
        tell(
            state,
            finished(str(number), session=f"s{number}"),
            float(number),
        )

    (said,) = forecasts(tell(state, finished("last", session="s0"), 31.0))

    assert said.remaining_engine_s == pytest.approx(0.25 * said.remaining_steps)


def test_a_step_of_unknown_work_teaches_nothing_about_work():
    state = core()
    tell(state, finished("1", work_s=-1.0), 0.0)

    assert state.models[GLOBAL].modelled_s.weight == 0
