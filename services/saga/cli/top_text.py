"""One frame of `saga top`, as tables for a terminal."""

from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from saga.cli.top_watch import CellWatch, WorkerSeen
from saga.contract.tenant_messages import TenantUse

BAR: Final = 16  # characters
MOST_WORKERS: Final = 24
MOST_TENANTS: Final = 12
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


def frame(watch: CellWatch, cell: str, now_s: float) -> RenderableType:
    """Everything, in the height of a usual terminal."""
    return Group(_head(watch, cell, now_s), Text(), _workers(watch, now_s), Text(), _tenants(watch, now_s))


def bar(share: float, width: int = BAR) -> str:
    """A bar in eighths of a character; what is above one is cut."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def tokens(count: float) -> str:
    """12,345 as 12.3K."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "K")):
        if count >= size:
            return f"{count / (1e3 if unit == 'K' else size):.1f}{unit}"
    return f"{count:.0f}"


def _head(watch: CellWatch, cell: str, now_s: float) -> Text:
    up = sum(seen.up(now_s) for seen in watch.workers.values())
    uses = watch.tenants.values()
    cached, claimed = watch.cached_share(), watch.claimed_share(now_s)
    figures = [
        ("workers", f"{up}/{len(watch.workers)}", up < len(watch.workers)),
        ("active", str(sum(use.active_workflows for use in uses)), False),
        ("queued", str(queued := sum(use.queued_workflows for use in uses)), queued > 0),
        ("steps/s", f"{watch.steps_per_s(now_s):.1f}", False),
        ("tokens/s", tokens(watch.output_per_s(now_s)), False),
        ("cached", "-" if cached is None else f"{cached:.0%}", False),
        ("KV claimed", "-" if claimed is None else f"{claimed:.0%}", claimed is not None and claimed > 1),
    ]
    text = Text.assemble(("SAGA", "bold"), (f" {cell}", "dim"))
    for name, value, warns in figures:
        text.append(f"  {name} ", "dim")
        text.append(value, "bold yellow" if warns else "bold")
    if not watch.admission_answers:
        text.append("\nno admission leads this cell: tenants and workflows are as last heard", "yellow")
    return text


def _workers(watch: CellWatch, now_s: float) -> RenderableType:
    if not watch.workers:
        return Text("No worker is heard: is the cell up?", "yellow")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("worker", "model", "KV in use by its batch", "KV", "batch", "waiting", "tags"):
        table.add_column(name, justify="right" if name in ("KV", "batch", "waiting", "tags") else "left", no_wrap=True)
    seen = sorted(watch.workers.items(), key=lambda item: (item[1].up(now_s), item[0]))  # those that are down first
    for worker_id, worker in seen[:MOST_WORKERS]:
        table.add_row(worker_id, *_worker(worker, now_s))
    if len(seen) > MOST_WORKERS:
        table.add_row(Text(f"and {len(seen) - MOST_WORKERS} more", "dim"))
    return table


def _worker(seen: WorkerSeen, now_s: float) -> list[RenderableType]:
    beat, hello = seen.beat, seen.beat.worker
    if not seen.up(now_s):
        why = "its engine does not answer" if now_s - seen.seen_s <= 3 else f"silent for {now_s - seen.seen_s:.0f} s"
        return [hello.pool, Text(why, "red")]
    share = beat.used_tokens / max(1, hello.kv_tokens)
    return [
        hello.pool,
        Text.assemble((bar(share), "blue"), f" {share:4.0%}"),
        tokens(hello.kv_tokens),
        f"{beat.running}/{hello.max_running}",
        str(beat.waiting),
        str(beat.open_session_tags),
    ]


def _tenants(watch: CellWatch, now_s: float) -> RenderableType:
    if not watch.tenants:
        return Text("No tenant uses anything.", "dim")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("tenant", "weight", "active", "queued", "running", "waiting", "KV claimed", "steps/s", "held for"):
        table.add_column(name, justify="left" if name in ("tenant", "held for") else "right", no_wrap=True)
    uses = sorted(watch.tenants.values(), key=lambda use: (-use.kv_tokens, use.tenant))
    for use in uses[:MOST_TENANTS]:
        table.add_row(*_tenant(use, watch, now_s))
    if len(uses) > MOST_TENANTS:
        table.add_row(Text(f"and {len(uses) - MOST_TENANTS} more", "dim"))
    return table


def _tenant(use: TenantUse, watch: CellWatch, now_s: float) -> list[RenderableType]:
    return [
        use.tenant,
        f"{use.weight:g}",
        str(use.active_workflows),
        Text(str(use.queued_workflows), "yellow" if use.queued_workflows else ""),
        str(use.running_steps),
        str(use.waiting_steps),
        tokens(use.kv_tokens),
        f"{watch.steps_per_s(now_s, use.tenant):.1f}",
        Text(use.held_for.replace("_", " "), "yellow"),
    ]
