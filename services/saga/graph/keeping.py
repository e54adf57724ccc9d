"""Models between memory and JetStream KV: loaded at the start, stored behind, reset when asked. Pure; part of `state`.

All processes of a cell learn the same; each stores the models of its own partitions. A few at a time: encoding some
hundred of them at once would hold up forecasts.
"""

import hashlib
from typing import Final

from saga.graph.models import Model
from saga.graph.partitions import PARTITIONS, partition_of
from saga.graph.shelf import GLOBAL, Shelf
from saga.graph.storing import decode_model, encode_model
from saga.kernel.effects import Effect, Forget, Persist

PERSIST_EVERY_S: Final = 10.0  # what is lost when a process dies, the replay at the start of the next teaches again
PERSIST_AT_ONCE: Final = 16
PERSIST_PAUSE_S: Final = 0.02
NEVER_S: Final = float("inf")


def model_key(name: str) -> str:
    """Where a model is stored."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


class Keeping:
    """What is stored of a shelf, and when."""

    def __init__(self, shelf: Shelf) -> None:
        self.owned = frozenset(range(PARTITIONS))
        self._shelf = shelf
        self._due: list[str] = []  # to be stored now

    def load(self, value: bytes) -> None:
        """A stored model; one that is older than what is here, or of another version, is ignored."""
        model = decode_model(value)
        if model is not None:
            known = self._shelf.models.get(model.name)
            if known is None or known.learnt_until_at < model.learnt_until_at:
                self._shelf.put(model)

    def reset(self, name: str) -> list[Effect]:
        """Forget a model, or all, here and where it is stored. What was replayed once is not learnt again."""
        models = self._shelf.models
        names = [name] if name else list(models)
        for known in names:
            model = self._shelf.drop(known)
            if known == GLOBAL and model is not None:
                models[GLOBAL] = Model(GLOBAL, learnt_until_at=model.learnt_until_at)
        effects = self._store([GLOBAL] if GLOBAL in names else [])
        return effects + [Forget(model_key(n)) for n in names if n != GLOBAL and partition_of(n) in self.owned]

    def some(self) -> list[Effect]:
        """Store what is due, as much as may be done at once."""
        effects: list[Effect] = []
        if not self._due:
            self._due = list(self._shelf.dirty)
            gone = self._shelf.take_dropped()
            effects += [Forget(model_key(name)) for name in gone if partition_of(name) in self.owned]
        now, self._due = self._due[:PERSIST_AT_ONCE], self._due[PERSIST_AT_ONCE:]
        return effects + self._store(now)

    def everything(self) -> list[Effect]:
        """Store all that is not stored as it is."""
        return self._store([*self._due, *self._shelf.dirty])

    def next_s(self, now_s: float) -> float:
        """When there is something to store again."""
        if self._due:
            return now_s + PERSIST_PAUSE_S
        return now_s + PERSIST_EVERY_S if self._shelf.dirty else NEVER_S

    def _store(self, names: list[str]) -> list[Effect]:
        effects: list[Effect] = []
        for name in names:
            self._shelf.dirty.pop(name, None)
            if partition_of(name) in self.owned and name in self._shelf.models:
                effects.append(Persist(model_key(name), encode_model(self._shelf.models[name])))
        return effects
