"""The trie workload format (repository Applied-Compute/trie): one conversation with its tool calls per JSON line.

`num_turns` calls of tools, then a final answer: `num_turns + 1` steps, each prompt being the last one with its answer
and the tool's output. Latencies in seconds. Called by `files`.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from saga.contract.unreadable import UNREADABLE
from saga.load.traces.lines import BadLines, shown
from saga.load.traces.prompts import BLOCK_TOKENS, Prompts, kept_tokens
from saga.load.traces.session import END_TURN, MAIN_AGENT, TOOL_USE, Session, Step, Tokens, Written

EXPECTED = (
    "one conversation as a JSON object (num_turns, input_prompt_length, assistant_response_length[], "
    "tool_call_output_length[], tool_call_latency[], final_assistant_response_length)"
)


class Row(Struct, frozen=True):
    """One line."""

    num_turns: Tokens
    input_prompt_length: Tokens
    assistant_response_length: tuple[Tokens, ...]
    tool_call_output_length: tuple[Tokens, ...]
    tool_call_latency: tuple[Annotated[float, Meta(ge=0)], ...]
    final_assistant_response_length: Tokens


def parse(lines: Iterable[tuple[int, bytes]], bad: BadLines) -> list[Session]:
    """Every conversation as a session of one turn, named by its line."""
    decoder = msgspec.json.Decoder(Row)
    sessions = []
    for number, line in lines:
        try:
            row = decoder.decode(line)
        except UNREADABLE as error:
            bad.at(number, f"expected {EXPECTED}: {error}; found {shown(line)}", error)
            continue
        lengths = {
            "assistant_response_length": len(row.assistant_response_length),
            "tool_call_output_length": len(row.tool_call_output_length),
            "tool_call_latency": len(row.tool_call_latency),
        }
        wrong = [f"{length} in {name}" for name, length in lengths.items() if length != row.num_turns]
        if wrong:
            bad.at(number, f"expected num_turns {row.num_turns} values in each list, found {', '.join(wrong)}")
            continue
        sessions.append(_session(f"trie-{number:06d}", row))
    return sessions


def _session(name: str, row: Row) -> Session:
    prompts = Prompts()
    steps = []
    tokens, start_s, gap_s = row.input_prompt_length, 0.0, 0.0
    calls = zip(row.assistant_response_length, row.tool_call_output_length, row.tool_call_latency, strict=True)
    for answer, result, latency_s in calls:
        steps.append(Step(MAIN_AGENT, start_s, tokens, answer, prompts.next(tokens, tokens), TOOL_USE, gap_s=gap_s))
        tokens, start_s, gap_s = tokens + answer + result, start_s + latency_s, latency_s
    answer = row.final_assistant_response_length
    steps.append(Step(MAIN_AGENT, start_s, tokens, answer, prompts.next(tokens, tokens), END_TURN, gap_s=gap_s))
    return Session(name, BLOCK_TOKENS, tuple(steps))


def write(sessions: Sequence[Session]) -> Written:
    """One line for each agent, and one more wherever a prompt does not extend the last one."""
    lines: list[str] = []
    conversations = cuts = human_gaps = 0
    for session in sessions:
        for steps in session.agents().values():
            conversations += 1
            chain: list[Step] = []
            for step in steps:
                last = chain[-1] if chain else None
                if last is not None and kept_tokens(last, step, session.block_tokens) < (
                    last.input_tokens + last.output_tokens
                ):
                    lines.append(_line(chain))
                    chain = []
                    cuts += 1
                elif last is not None and last.stop == END_TURN:
                    human_gaps += 1
                chain.append(step)
            if chain:
                lines.append(_line(chain))
    lost = [
        "session ids and start times, service times, models",
        "prefixes that sessions share (trie prompts are new in each conversation)",
    ]
    if conversations != len(sessions):
        lost.append(
            f"which agent is whose sub-agent: {conversations - len(sessions)} became conversations of their own"
        )
    if cuts:
        lost.append(f"prompts that do not extend the last one: {cuts} begin a conversation of their own")
    if human_gaps:
        lost.append(f"which gaps are a human's: {human_gaps} are written as tool latency")
    return Written(tuple(lines), tuple(lost))


def _line(steps: Sequence[Step]) -> str:
    calls = range(len(steps) - 1)
    row = Row(
        num_turns=len(calls),
        input_prompt_length=steps[0].input_tokens,
        assistant_response_length=tuple(steps[at].output_tokens for at in calls),
        tool_call_output_length=tuple(
            steps[at + 1].input_tokens - steps[at].input_tokens - steps[at].output_tokens for at in calls
        ),
        tool_call_latency=tuple(steps[at + 1].think_s for at in calls),
        final_assistant_response_length=steps[-1].output_tokens,
    )
    return msgspec.json.encode(row).decode()
