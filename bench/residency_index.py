"""What the residency index costs: ingest of page events, lookup of a long prompt over many workers, memory.

    python bench/residency_index.py [--workers 64] [--pages 7000] [--prompt-pages 1600] [--json]

Prompts share a system prefix that every worker holds; each worker holds a different depth of the prompts that are
looked up. One core. Targets: 200,000 events/s, P99 200 us, 200 bytes per (page, worker), 100 ms for one worker's
snapshot: made by its agent, sent and read as messages, and installed. Wall and CPU time part when others want the core.
"""

import argparse
import gc
import json
import random
import resource
import time
import tracemalloc
from dataclasses import dataclass

from saga.contract.ids import WorkerId
from saga.contract.messages import PagesRemoved, PagesStored, ResidencyDelta, ResyncReply, decode, encode
from saga.kv.residency import ResidencyIndex
from saga.worker.residency import PART_EVERY_S, ResidencyFeed

SHARED_PAGES = 150
DELTA_PAGES = 25  # of a turn of an agent: 1,600 tokens in pages of 64


@dataclass(frozen=True)
class Shape:
    """Sizes of one run."""

    workers: int
    pages: int
    prompt_pages: int
    seed: int


def filled(shape: Shape, rng: random.Random) -> tuple[ResidencyIndex, list[bytes]]:
    """An index with every worker full, and the prompts that are spread over the workers at random depths."""
    index = ResidencyIndex()
    shared = rng.randbytes(8 * SHARED_PAGES)
    prompts = [shared + rng.randbytes(8 * (shape.prompt_pages - SHARED_PAGES)) for _ in range(4)]
    for number in range(shape.workers):
        worker = WorkerId(f"w{number}")
        held: dict[bytes, None] = {}
        for prompt in prompts:
            depth = rng.randint(SHARED_PAGES, shape.prompt_pages)
            held.update(dict.fromkeys(prompt[i : i + 8] for i in range(0, 8 * depth, 8)))
        held.update(dict.fromkeys(rng.randbytes(8) for _ in range(shape.pages - len(held))))
        stored = b"".join(held)
        for seq, start in enumerate(range(0, len(stored), 8 * DELTA_PAGES), start=1):
            index.apply(_stored(worker, seq, stored[start : start + 8 * DELTA_PAGES]))
    return index, prompts


def _stored(worker: WorkerId, seq: int, hashes: bytes) -> ResidencyDelta:
    return ResidencyDelta(worker_id=worker, epoch=1, seq=seq, changes=(PagesStored(hashes),))


def ingest_per_s(index: ResidencyIndex, shape: Shape, rng: random.Random) -> tuple[float, float]:
    """Page events per second, of wall time and of CPU time, in steady state: each delta stores some pages and removes
    as many older ones."""
    deltas = []
    held = {WorkerId(f"w{n}"): [rng.randbytes(8 * DELTA_PAGES) for _ in range(8)] for n in range(shape.workers)}
    for worker, blocks in held.items():
        _, seq = index.position(worker)
        index.apply(_stored(worker, seq + 1, b"".join(blocks)))
    seqs = {worker: index.position(worker)[1] for worker in held}
    for _ in range(200_000 // (2 * DELTA_PAGES)):
        worker = rng.choice(list(held))
        new = rng.randbytes(8 * DELTA_PAGES)
        held[worker].append(new)
        seqs[worker] += 1
        changes = (PagesStored(new), PagesRemoved(held[worker].pop(0)))
        deltas.append(ResidencyDelta(worker_id=worker, epoch=1, seq=seqs[worker], changes=changes))
    gc.collect()
    started, started_cpu = time.perf_counter(), time.process_time()
    for delta in deltas:
        index.apply(delta)
    events = len(deltas) * 2 * DELTA_PAGES
    return events / (time.perf_counter() - started), events / (time.process_time() - started_cpu)


def snapshots_ms(index: ResidencyIndex, shape: Shape, rng: random.Random, count: int = 50) -> tuple[float, float]:
    """The slowest of some snapshots of one worker, wall and CPU time, from the agent's pages to the index's."""
    worker = WorkerId("w0")
    feed = ResidencyFeed(worker, rng, jitter_s=0.0)
    epoch, _ = index.position(worker)
    feed.restart(epoch + 1)
    feed.change((PagesStored(rng.randbytes(8 * shape.pages)),), 0.0)
    wall, cpu = [], []
    for number in range(count):
        now_s = 1e3 * number
        for heard in (False, True):  # the first of two deltas is lost
            feed.change((PagesStored(rng.randbytes(8)),), now_s)
            for delta in feed.flush():
                if heard:
                    index.apply(delta)
        assert index.stale(worker)
        started, started_cpu = time.perf_counter(), time.process_time()
        feed.ask("inbox", now_s)
        while index.stale(worker):
            for _, part in feed.due(now_s)[1]:
                reply = decode(encode(part))
                assert isinstance(reply, ResyncReply)
                index.apply_snapshot(reply)
            now_s += PART_EVERY_S
        cpu.append((time.process_time() - started_cpu) * 1e3)
        wall.append((time.perf_counter() - started) * 1e3)
    assert index.pages_on(worker) == feed.pages
    return max(wall), max(cpu)


def lookups_us(index: ResidencyIndex, prompts: list[bytes], count: int = 5_000) -> tuple[list[float], list[float]]:
    """Wall time and CPU time of each lookup, sorted. They part when other processes want the core."""
    wall, cpu = [], []
    for number in range(count):
        prompt = prompts[number % len(prompts)]
        started, started_cpu = time.perf_counter(), time.thread_time()
        index.match(prompt)
        cpu.append((time.thread_time() - started_cpu) * 1e6)
        wall.append((time.perf_counter() - started) * 1e6)
    return sorted(wall), sorted(cpu)


def memory_bytes(shape: Shape) -> float:
    """Bytes per (page, worker) when every page is held by one worker alone, the worst case, arriving by snapshot."""
    rng = random.Random(shape.seed)
    tracemalloc.start()
    index = ResidencyIndex()
    for number in range(shape.workers):
        hashes = rng.randbytes(8 * shape.pages)
        index.apply_snapshot(
            ResyncReply(worker_id=WorkerId(f"w{number}"), epoch=1, seq=1, part=0, parts=1, hashes=hashes)
        )
    del hashes
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / (shape.workers * shape.pages)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--pages", type=int, default=7_000)
    parser.add_argument("--prompt-pages", type=int, default=1_600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    shape = Shape(options.workers, options.pages, options.prompt_pages, options.seed)
    rng = random.Random(shape.seed)
    index, prompts = filled(shape, rng)
    wall, cpu = lookups_us(index, prompts)
    ingest, ingest_cpu = ingest_per_s(index, shape, rng)
    report = {
        "workers": shape.workers,
        "pages_per_worker": shape.pages,
        "prompt_pages": shape.prompt_pages,
        "workers_matched": len(index.match(prompts[0])),
        "lookup_us_p50": round(wall[len(wall) // 2], 1),
        "lookup_us_p99": round(wall[len(wall) * 99 // 100], 1),
        "lookup_cpu_us_p99": round(cpu[len(cpu) * 99 // 100], 1),
        "ingest_pages_per_s": round(ingest),
        "ingest_pages_per_cpu_s": round(ingest_cpu),
        "memory_bytes_per_page_and_worker": round(memory_bytes(shape), 1),
        "max_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    snapshot_ms, snapshot_cpu_ms = snapshots_ms(index, shape, rng)
    report |= {"snapshot_ms_max": round(snapshot_ms, 1), "snapshot_cpu_ms_max": round(snapshot_cpu_ms, 1)}
    index.check()
    if options.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name:34} {value}")


if __name__ == "__main__":
    main()
