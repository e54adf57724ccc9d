"""What is said of results."""

import json

from chaos_trials import attempt, story

from saga.chaos.report import Result, as_json, as_line, as_markdown, result_of


def test_a_fault_that_held_is_one_line_and_one_row(trial):
    cut = story(1, 112.0, attempts=[attempt(outcome="cut"), attempt(gateway=1)], silent_s=1.1)
    made = trial(story(), cut, fault="kill-gateway")
    result = result_of(trial(*made.stories, fault="kill-gateway", blow=type(made.blow)((), frozenset({0}))), 3)

    assert result.held
    assert result.safe
    assert as_line(result).splitlines() == [
        "kill-gateway         ok         2 steps  pause in calm 0.00, then P50 1.00, P99 1.00, max 1.00 s"
    ]
    row = as_markdown([result]).splitlines()[2]
    assert row.startswith(
        "| `kill-gateway` | SIGKILL one of two gateways | 2 answers, 1 connections broke | 1.00 | 1.00 |"
    )
    assert row.count("held") == 6, "affinity and shares had nothing to be judged by"


def test_what_did_not_hold_is_told_with_its_figures(trial):
    result = result_of(trial(story(text="x"), finished={}), 3)

    assert not result.held
    assert not result.safe
    assert "    doubled: s0.0: another text" in as_line(result)
    assert "**s0.0: another text**" in as_markdown([result])
    (told,) = json.loads(as_json([result]))
    assert told["verdicts"][1] == {"name": "doubled", "held": False, "told": "s0.0: another text"}


def test_a_pause_over_its_limit_fails_the_fault_and_not_what_is_safe(trial):
    result = result_of(trial(story(0, 100.0), story(0, 111.0, silent_s=3.0)), 3)
    assert not result.held
    assert result.safe
    assert "| **2.90** |" in as_markdown([result])


def test_a_fault_that_could_not_be_done_says_why():
    result = Result(fault="cut-engine", what="a link is cut", skipped="needs root")
    assert result.held
    assert as_line(result) == "cut-engine           skipped: needs root"
    assert "| skipped: needs root |" in as_markdown([result])
