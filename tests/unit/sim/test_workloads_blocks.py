"""Page hashes of recorded sessions against what they stand for: equal pages are those with equal blocks before them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from saga.load.planner import PlanSettings, build_plan
from saga.load.trace import Session, Step, SubAgent
from saga.load.traces.prompts import Prompts
from saga.sim.recorded import Recorded

BLOCK = 64


@st.composite
def recorded_sessions(draw):
    """A session whose prompts extend, revise and repeat, with a sub-agent that shares its tools or does not."""
    steps = []
    for agent in ("main", "sub"):
        prompts, tokens, output, made = Prompts(), draw(st.integers(64, 1500)), 0, []
        for index in range(draw(st.integers(1, 6))):
            if index:
                kept = draw(st.sampled_from((tokens + output, tokens + output, tokens, tokens // 2, 0)))
                tokens = kept + draw(st.integers(0, 600))
                tokens = max(tokens, 1)
                blocks = prompts.next(kept, tokens)
            else:
                blocks = prompts.next(0, tokens)
            output = draw(st.integers(1, 300))
            made.append(Step(agent, float(index), tokens, output, blocks, "tool_use", 0.0, 0.0))
        steps += made
    tool_tokens, sub_tokens = draw(st.sampled_from((0, 64, 300))), draw(st.sampled_from((0, 64, 300)))
    return Session("a", BLOCK, tuple(steps), tool_tokens, 0, (SubAgent("sub", 0.0, sub_tokens),))


def meaning(planned, number, agent, index, page_tokens, wanted):
    """What a page is, from the blocks: what sessions share, a block of this draw, or an answer nobody repeats."""
    step = planned.steps[index]
    after = planned.steps[index + 1] if index + 1 < len(planned.steps) else None
    runs = after.blocks if after is not None and after.extends else step.blocks
    each = BLOCK // page_tokens
    pages = [(block, part) for first, count in runs for block in range(first, first + count) for part in range(each)]
    found, before = [], planned.shared_key
    for page in range(wanted):
        if page >= len(pages):
            own = (number, agent, index, page)
        elif page < step.shared_blocks * each:
            own = ("shared", page)
        else:
            own = (number, pages[page])
        before = hash((before, own))
        found.append(before)
    return found


@settings(max_examples=60)
@given(recorded_sessions(), st.sampled_from((16, 64)))
def test_pages_are_equal_where_they_mean_the_same(session, page_tokens):
    recorded = Recorded([session], 1, context_tokens=1 << 20, kv_tokens=1 << 30, page_tokens=page_tokens)
    agents = build_plan([session], PlanSettings(context_tokens=1 << 20, kv_tokens=1 << 30)).tasks[0].agents
    meant_by, written_as = {}, {}
    for number in range(2):
        for agent, simulated in enumerate(recorded.draw(number).agents):
            pages, last = recorded.pages(number, agent), []
            shared_key = agents[agent].shared_key
            for index, step in enumerate(simulated.steps):
                seen = recorded._seen_shared.get(shared_key, 0)
                hashes, known = pages.advance(index, step)
                written = [hashes[at : at + 8] for at in range(0, len(hashes), 8)]
                wanted = (step.prompt_tokens + step.output_tokens) // page_tokens
                meant = meaning(agents[agent], number, agent, index, page_tokens, wanted)
                assert len(written) == wanted
                for page, what in zip(written, meant, strict=True):
                    assert meant_by.setdefault(page, what) == what
                    assert written_as.setdefault(what, page) == page
                same = next(
                    (at for at, pair in enumerate(zip(last, written, strict=False)) if pair[0] != pair[1]), None
                )
                kept = min(len(last), len(written)) if same is None else same
                shared = agents[agent].steps[index].shared_blocks * (BLOCK // page_tokens)
                assert known == (max(kept, min(shared, seen)) if kept < shared else kept)
                last = written
