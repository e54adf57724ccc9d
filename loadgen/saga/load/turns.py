"""A growing prompt as messages: what was said stays said, so that each request begins with those of the one before.

A prompt that goes on from the last one and its answer becomes the same messages, the answer, and one new message of
the user. One that leaves the last one (compaction, another branch) keeps what is still true. Called by replay.
"""

from saga.load.apis import Turn


class Talk:
    """One session's messages."""

    def __init__(self, system_chars: int) -> None:
        """`system_chars`: of the prompt, that are instructions and tools."""
        self._system_chars = system_chars
        self._turns: list[Turn] = []

    def asked(self, prompt: str) -> tuple[Turn, ...]:
        """The messages of this prompt; together they are its text."""
        at = kept = 0
        for turn in self._turns:
            if not prompt.startswith(turn.text, at):
                break
            at += len(turn.text)
            kept += 1
        turns = self._turns[:kept]
        while turns and (turns[-1].role == "user" or at == len(prompt)):
            at -= len(turns.pop().text)
        if not turns and 0 < self._system_chars < len(prompt):
            turns, at = [Turn("system", prompt[: self._system_chars])], self._system_chars
        self._turns = [*turns, Turn("user", prompt[at:])]
        return tuple(self._turns)

    def answered(self, text: str) -> None:
        """What came back, if anything did."""
        if text:
            self._turns.append(Turn("assistant", text))
