"""A declared graph, and the arithmetic over it: what comes next, how much is left, and whether anything is. Pure.

Edges without a probability are dependencies: they form no cycle, all of them are taken, and where several meet the
node waits for all and runs once. Edges with one are choices, at most one of a node's is taken; what is missing to 1 is
the probability of ending there. Numbers of visits are found by sweeps over the edges, a bounded number of them, so
that they may fall short where a loop is both long and large. Used by `declared`.
"""

from collections.abc import Mapping
from typing import Final

from saga.contract.workflow_messages import DeclaredEdge, DeclaredNode

MAX_VISITS: Final = 256.0  # of one node: more is as good as for ever
SWEEP_PARTS: Final = 20_000  # nodes and edges looked at for one answer: some 3 ms
EXACT: Final = 1e-3


class Plan:
    """One graph, its nodes by number. What was not checked at the door does no harm: unknown ends are left out."""

    def __init__(self, nodes: tuple[DeclaredNode, ...], edges: tuple[DeclaredEdge, ...]) -> None:
        self.nodes = nodes
        self.numbers = {node.id: number for number, node in reversed(list(enumerate(nodes)))}
        self.edges = tuple(e for e in edges if e.source in self.numbers and e.target in self.numbers)
        self.agents = sorted({node.agent for node in nodes})
        count = len(nodes)
        self._always: list[list[int]] = [[] for _ in range(count)]  # dependencies, by source
        self._perhaps: list[list[tuple[int, float]]] = [[] for _ in range(count)]  # choices, by source
        self._needs: list[list[int]] = [[] for _ in range(count)]  # dependencies, by target
        self._chosen_from: list[list[tuple[int, float]]] = [[] for _ in range(count)]
        for edge in self.edges:
            source, target = self.numbers[edge.source], self.numbers[edge.target]
            if edge.probability < 0:
                self._always[source].append(target)
                self._needs[target].append(source)
            else:
                self._perhaps[source].append((target, edge.probability))
                self._chosen_from[target].append((source, edge.probability))
        self.entries = tuple(n for n in range(count) if not self._needs[n] and not self._chosen_from[n])
        if not self.entries and nodes:  # a loop leads back to where it begins: the first one named
            self.entries = (0,)
        self._order, loops = self._ordered()
        self._sweeps = max(2, SWEEP_PARTS // (count + len(self.edges))) if loops else 1
        self._reaches: dict[str, list[float]] = {}

    def pending(self, counts: Mapping[int, int]) -> set[int]:
        """Nodes that are due: what depends on a node that had more steps than it has had itself."""
        return {
            target for node, steps in counts.items() for target in self._always[node] if counts.get(target, 0) < steps
        }

    def next_of(self, node: int, counts: Mapping[int, int]) -> list[tuple[int, float]]:
        """What may follow a node, with its probability: what is due, then choices, likely ones first."""
        steps = counts.get(node, 0)
        due = [(target, 1.0) for target in self._always[node] if counts.get(target, 0) < steps]
        return due + sorted(self._perhaps[node], key=lambda item: -item[1])

    def visits(self, counts: Mapping[int, int], at: list[int]) -> list[float]:
        """How often each node is still to be visited, on average: so many steps were had, from `at` a choice is open.

        What depends on others has as many steps in all as the one of them with most.
        """
        had = [float(counts.get(node, 0)) for node in range(len(self.nodes))]
        first = [0.0] * len(self.nodes)
        if not counts:
            for node in self.entries:
                first[node] = 1.0
        for node in at:
            for target, probability in self._perhaps[node]:
                first[target] += probability
        found = [0.0] * len(self.nodes)
        for _ in range(self._sweeps):
            moved = 0.0
            for node in self._order:
                due = 0.0
                for source in self._needs[node]:
                    due = max(due, had[source] + found[source] - had[node])
                value = first[node] + due
                for source, probability in self._chosen_from[node]:
                    value += probability * found[source]
                value = min(value, MAX_VISITS)
                moved = max(moved, abs(value - found[node]))
                found[node] = value
            if moved < EXACT:
                break
        return found

    def returns(self, agent: str, at: int, pending: set[int]) -> float:
        """Probability that a node of this agent is still to come, after a step at `at` with `pending` due."""
        reaches = self._reaching(agent)
        never = 1.0 - sum(probability * reaches[target] for target, probability in self._perhaps[at])
        for node in pending:
            never *= 1.0 - reaches[node]
        return min(1.0, max(0.0, 1.0 - never))

    def _reaching(self, agent: str) -> list[float]:
        """Probability of a node of this agent at or after each node."""
        if agent in self._reaches:
            return self._reaches[agent]
        found = [1.0 if node.agent == agent else 0.0 for node in self.nodes]
        for _ in range(self._sweeps):
            moved = 0.0
            for node in reversed(self._order):
                if self.nodes[node].agent == agent:
                    continue
                never = 1.0 - sum(probability * found[target] for target, probability in self._perhaps[node])
                for target in self._always[node]:
                    never *= 1.0 - found[target]
                value = min(1.0, max(0.0, 1.0 - never))
                moved = max(moved, abs(value - found[node]))
                found[node] = value
            if moved < EXACT:
                break
        self._reaches[agent] = found
        return found

    def _ordered(self) -> tuple[list[int], bool]:
        """Nodes such that sources come before targets where they can, and whether some cannot (there are loops)."""
        after: list[int] = []
        state = [0] * len(self.nodes)  # 0: not seen, 1: on the way down, 2: done
        loops = False
        for start in (*self.entries, *range(len(self.nodes))):
            if state[start]:
                continue
            state[start] = 1
            stack = [(start, iter(self._targets(start)))]
            while stack:
                node, targets = stack[-1]
                target = next(targets, None)
                if target is None:
                    stack.pop()
                    state[node] = 2
                    after.append(node)
                elif state[target] == 0:
                    state[target] = 1
                    stack.append((target, iter(self._targets(target))))
                else:
                    loops = loops or state[target] == 1
        return after[::-1], loops

    def _targets(self, node: int) -> list[int]:
        return [*self._always[node], *(target for target, _ in self._perhaps[node])]
