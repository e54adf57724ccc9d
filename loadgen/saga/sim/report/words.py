"""The sentences of the page: how to read each section, and what its words mean."""

from typing import Final

from saga.sim.report.compare import COLLAPSE

GLANCE: Final = (
    "One bar and one row for each condition. A ratio is the mean TCT of the baseline over that of saga, median over "
    "paired seeds: above 1 saga is faster, and a 95 % interval across 1 shows nothing; the table colours those that "
    "do not cross it. The best baseline is the fastest stable one; the slowest shows what becomes of a system that "
    "limits nothing."
)
CURVES: Final = (
    "Lower is better, and nothing should be far above the dashed KV bound. Bold: saga and the baseline with the lowest "
    "geometric mean over the curve, with strokes from the lowest to the highest seed, each seed against its own bound. "
    "Panels of one workload share their axes; the pointer on a mark shows its figures."
)
TABLES: Final = (
    "One table for each condition, saga first, then by mean TCT; means over seeds. Speed is the mean TCT of the best "
    "baseline over that of the row: above 1 is faster. “Collapsed” is a mean TCT of more than "
    f"{COLLAPSE:g} times the best baseline's."
)
CDFS: Final = (
    "A point says which share of tasks took at most so long: a curve further left is better, and where it ends on the "
    "right is the slowest task. Right panel: each task against itself in the KV bound; left of the dotted line it met "
    "its objective. This and the next sections show one condition of each workload and host tier: pressure 2 or the "
    "nearest, or the highest load."
)
KV: Final = (
    "The strong colour is KV that running requests hold, the pale one KV that only the cache holds, the dashed line "
    "all there is. Room left below the line is unused; strong up to the line is a worker that must retract or queue."
)
WORKFLOW: Final = (
    "A lane is one session of the same workflow, thick where it waits or is served and thin in its gaps; the worker "
    "is named where it changes. A triangle marks a later step of whose prompt less than half was cached: that prefill "
    "was work done twice, unless the context had just been compacted. Rest the pointer on a bar for its figures."
)
MOVES: Final = (
    "A lane is one worker: what runs there, and on top of it what waits for it. A stroke is a step that waited for one "
    "worker and started on another, its arrow head there. Below, for each of them: the waiting that placement expected "
    "to save, and the prefill that it repeats because the session's KV stays behind."
)
TENANTS: Final = (
    "Modelled engine-seconds delivered to each tenant since the start, over its weight where weights are known. While "
    "tenants have work waiting, lines of equal slope are a fair division."
)
ABLATION: Final = (
    "Each bar is saga with one thing taken away or changed, as mean TCT over that of full saga, median over seeds, "
    "with the 95 % interval, all on one scale. Right of 1 the part is worth having; an interval across 1 shows nothing."
)
CACHE: Final = (
    "Tokens that had to be prefilled again on a fixed trace, because the cache of that size had dropped them. The "
    "oracle knows the future; the last column says how much of the way from LRU (0) to the best policy without that "
    "knowledge (100) is gone."
)
CACHE_HEADS: Final = [
    ("Policy", ""),
    ("Capacity", "million tokens"),
    ("Regenerated", "million tokens"),
    ("Oracle", "million tokens"),
    ("Regenerated", "x oracle"),
    ("Gap closed", "% of LRU to causal best"),
]
WORDS: Final = (
    ("TCT", "task completion time: from a task's submission to its last answer, queueing and tools included."),
    (
        "KV bound",
        "the same tasks with KV shared and unlimited and no control-plane cost: a reference, not a proven floor.",
    ),
    ("Slowdown", "TCT over the same task's TCT in the KV bound."),
    ("SLO met", "share of tasks with a slowdown of at most 1.5; a task that never ended met none."),
    ("SLO as published", "share of tasks within 1.5 x the mean TCT that their class has in the KV bound."),
    ("Hit rate", "cached over prompt tokens, as engines report."),
    ("Regenerated", "tokens prefilled though an infinite cache would have had them."),
    ("Useful KV", "share of KV capacity, over time, in use or hit again before its eviction."),
    ("TTFT", "time to first token of a step, queueing included."),
    ("Pressure", "closed loop: KV that all users would need at once, over the cluster's KV capacity."),
    ("Load", "open loop: arrivals as a fraction of the best measured tasks/min of any system named."),
    ("Unstable", "open loop: the number of tasks in the system grew throughout; no ratio is given."),
)
