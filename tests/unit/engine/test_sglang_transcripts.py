"""The simulated engine does what a real SGLang 0.5.23 was heard to do: hits of each request, KV events hash by hash.

Shorter than tests/real_sglang/test_equality.py, which recorded it, but without a server.
"""

from pathlib import Path

import pytest
from engine_transcript import Transcript, digest, load, replayed

TRANSCRIPTS = load(Path(__file__).parent / "sglang_transcripts.json")


def test_every_family_was_heard_by_lru_and_by_priority_with_tags_and_without():
    assert len({transcript.name for transcript in TRANSCRIPTS}) == len(TRANSCRIPTS) == 16


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_the_core_says_what_the_server_said(transcript: Transcript):
    cached_tokens, lines = replayed(transcript)

    assert cached_tokens == transcript.cached_tokens
    assert len(lines) == transcript.events
    assert digest(lines) == transcript.events_sha256
    assert sum(line[0] == "remove" for line in lines) > 100, "nothing was proven about eviction"
