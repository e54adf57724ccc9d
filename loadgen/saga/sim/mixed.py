"""S6 `mixed`: coding agents with background chat, and any other mixture of workloads.

A part is drawn for each conversation by the shares; every part keeps its own tenants. Called by `workloads`.
"""

from random import Random

from msgspec import Struct

from saga.sim.conversation import Conversation, Pages, WorkerLoss, Workload


class Part(Struct, frozen=True):
    """One workload of a mixture, and its share of the conversations in relation to the others'."""

    workload: Workload
    share: float


class Mixed:
    """Conversations of several workloads. Draw number i is the same for every system and however many are drawn."""

    def __init__(self, name: str, seed: int, parts: tuple[Part, ...]) -> None:
        self._seed = f"{name}/{seed}"
        self._parts = parts
        self._shares = [part.share for part in parts]

    @property
    def weights(self) -> dict[str, float]:
        """Those of all parts."""
        return {tenant: weight for part in self._parts for tenant, weight in part.workload.weights.items()}

    @property
    def losses(self) -> tuple[WorkerLoss, ...]:
        """Those of all parts."""
        return tuple(loss for part in self._parts for loss in part.workload.losses)

    def draw(self, number: int) -> Conversation:
        """Conversation number `number`."""
        return self._part(number).draw(number)

    def pages(self, number: int, agent: int) -> Pages:
        """Its page hashes."""
        return self._part(number).pages(number, agent)

    def _part(self, number: int) -> Workload:
        return Random(f"{self._seed}/{number}").choices(self._parts, self._shares)[0].workload
