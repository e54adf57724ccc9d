"""A tier that engines share: what one wrote another reads, what that takes, and who waits for it."""

from random import Random

import pytest
from engine_drive import PAGE, Drive, hashes_of, small_profile

from saga.engine.events import Abort
from saga.engine.shared_tier import SharedTier

PROMPT = "p" * 320
PROFILE = small_profile(kv_tokens=1_600, context_tokens=1_600, chunk_tokens=512)
PAGE_BYTES = PAGE * PROFILE.kv_bytes_per_token
FAST = 1e12  # bytes/s: crosses at once, nearly


def tier_of(pages: int = 4_000, bytes_per_s: float = FAST, total_bytes_per_s: float = 0.0) -> SharedTier:
    return SharedTier(pages, PAGE_BYTES, bytes_per_s, total_bytes_per_s)


def engine(tier: SharedTier, **settings) -> Drive:
    return Drive(PROFILE, shared=tier.link(), host_kv_tokens=3_200, **settings)


def wrote(tier: SharedTier, prompt: str = PROMPT) -> Drive:
    """An engine that has answered this, with all of it written by its clock's hour."""
    drive = engine(tier)
    drive.ask("first", prompt, "o")
    drive.run()
    drive.now_s = 3_600.0
    return drive


def later(drive: Drive) -> Drive:
    drive.now_s = 3_600.0
    return drive


def test_what_one_engine_computed_another_reads():
    tier = tier_of()
    wrote(tier)
    other = later(engine(tier))
    other.ask("moved", PROMPT + "q" * 8, "o")
    other.run()
    other.check()
    assert other.finished["moved"].cached_tokens == 320
    assert other.core.stats.prefilled_tokens == 8
    assert other.core.pool.host.loaded_pages == 80  # and from the host to the device like any of its pages
    link = other.core.pool.shared
    assert (link.hits, link.loaded_pages, link.written_pages) == (1, 80, 2)


def test_without_the_tier_it_computes_all_of_it_again():
    other = later(Drive(PROFILE, host_kv_tokens=3_200))
    other.ask("moved", PROMPT + "q" * 8, "o")
    other.run()
    assert (other.finished["moved"].cached_tokens, other.core.stats.prefilled_tokens) == (0, 328)


def test_it_starts_when_the_bytes_have_crossed():
    tier = tier_of(bytes_per_s=80 * PAGE_BYTES / 2.5)  # the prompt takes 2.5 s
    wrote(tier)
    other = later(engine(tier))
    other.ask("moved", PROMPT + "q" * 8, "o")
    assert other.core.waiting == 1
    assert other.core.waiting_tokens == 328
    assert other.wake_s == pytest.approx(3_602.5)
    other.run()
    assert other.finished["moved"].arrived_s == 3_600.0
    assert other.finished["moved"].started_s == pytest.approx(3_602.5)


def test_a_page_is_there_once_it_has_been_written():
    tier = tier_of(bytes_per_s=80 * PAGE_BYTES / 2.5)
    drive = engine(tier)
    drive.ask("first", PROMPT, "o")
    drive.run()
    done_s = drive.finished["first"].first_token_s
    hashes = hashes_of(PROMPT)
    assert tier.found(hashes, 0, done_s + 2.4) == 0
    assert tier.found(hashes, 0, done_s + 2.6) == 80


def test_a_few_tokens_are_not_worth_a_read():
    tier = tier_of()
    wrote(tier)
    for shared_tokens, cached_tokens in ((252, 0), (256, 256)):
        other = later(engine(tier))
        other.ask("moved", "p" * shared_tokens + "q" * 100, "o")
        other.run()
        assert other.finished["moved"].cached_tokens == cached_tokens


def test_only_what_device_and_host_lack_is_read():
    tier = tier_of()
    wrote(tier, PROMPT + "x" * 400)
    other = later(engine(tier))
    other.ask("short", PROMPT, "o")
    other.run()
    other.ask("long", PROMPT + "x" * 400 + "y", "o")
    other.run()
    other.check()
    assert other.finished["long"].cached_tokens == 720
    assert other.core.pool.shared.loaded_pages == 79 + 100


def test_others_start_meanwhile_and_it_keeps_its_place():
    tier = tier_of(bytes_per_s=80 * PAGE_BYTES / 2.5)
    wrote(tier)
    profile = small_profile(kv_tokens=1_600, context_tokens=1_600, chunk_tokens=512, max_running=1)
    other = later(Drive(profile, shared=tier.link(), host_kv_tokens=3_200))
    other.ask("moved", PROMPT + "q" * 8, "o")
    other.ask("beside", "b" * 40, "o" * 400)
    other.ask("behind", "c" * 40, "o")
    assert other.core.has("moved")
    other.run()
    other.check()
    assert other.finish_order == ["beside", "moved", "behind"]
    assert other.finished["beside"].started_s < 3_600.1


def test_a_request_that_is_aborted_on_the_way_leaves_nothing():
    tier = tier_of(bytes_per_s=80 * PAGE_BYTES / 2.5)
    wrote(tier)
    for schedule in ("fcfs", "lpm"):
        other = later(engine(tier, schedule=schedule))
        other.ask("moved", PROMPT + "q" * 8, "o")
        other.do(Abort("moved"))
        assert other.finished["moved"].reason == "abort"
        assert other.core.idle
        assert other.wake_s is None
        other.check()


def test_reads_of_one_engine_follow_each_other():
    tier = tier_of(bytes_per_s=80 * PAGE_BYTES / 2.5)
    link, neighbour = tier.link(), tier.link()
    assert link.read(80, 10.0) == pytest.approx(12.5)
    assert link.read(80, 10.0) == pytest.approx(15.0)
    assert neighbour.read(80, 10.0) == pytest.approx(12.5)


def test_all_engines_together_read_no_faster_than_the_store_sends():
    seconds = 80 * PAGE_BYTES
    tier = tier_of(bytes_per_s=seconds / 2.5, total_bytes_per_s=seconds / 2.0)
    links = [tier.link() for _ in range(3)]
    ends_s = [link.read(80, 0.0) for link in links]
    assert ends_s == [pytest.approx(2.5), pytest.approx(4.0), pytest.approx(6.0)]


def test_a_full_store_drops_what_was_not_used_longest_and_the_ends_of_chains_first():
    tier = tier_of(pages=100)
    link = tier.link()
    old, new = hashes_of("a" * 240), hashes_of("b" * 240)
    link.write(old, 0.0)
    link.write(new, 1.0)
    assert tier.found(new, 0, 2.0) == 60
    assert tier.found(old, 0, 2.0) == 40
    assert (tier.pages, tier.evicted_pages) == (100, 20)
    tier.check()


def test_what_a_lost_engine_was_writing_never_arrives():
    tier = tier_of(bytes_per_s=80 * PAGE_BYTES / 2.5)
    link = tier.link()
    link.write(hashes_of("a" * 320), 0.0)
    link.write(hashes_of("b" * 320), 0.0)
    link.lose(3.0)
    assert tier.found(hashes_of("a" * 320), 0, 100.0) == 80
    assert tier.found(hashes_of("b" * 320), 0, 100.0) == 0


def test_a_page_that_the_store_has_is_not_sent_again():
    tier = tier_of()
    wrote(tier)
    link = tier.link()
    link.write(hashes_of(PROMPT), 3_600.0)
    assert link.written_pages == 0


def test_a_shared_tier_needs_a_host_tier():
    with pytest.raises(ValueError, match="a shared tier needs a host tier"):
        Drive(PROFILE, shared=tier_of().link())


@pytest.mark.parametrize(("pages", "bytes_per_s"), [(0, 1e9), (10, 0.0)])
def test_a_store_without_room_or_link_is_refused(pages, bytes_per_s):
    with pytest.raises(ValueError, match="needs room and a link"):
        SharedTier(pages, PAGE_BYTES, bytes_per_s)


@pytest.mark.parametrize("seed", range(4))
def test_books_agree_whatever_comes(seed):
    """Two engines with pools that are too small, prompts that go on from each other, aborts in between."""
    random = Random(seed)
    tier = tier_of(pages=random.choice((150, 600)), bytes_per_s=random.choice((1e9, 1e10)), total_bytes_per_s=1.5e9)
    profile = small_profile(kv_tokens=800, context_tokens=800, chunk_tokens=64)
    drives = [Drive(profile, shared=tier.link(), host_kv_tokens=1_200, progress=seed % 2 == 0) for _ in range(2)]
    texts = ["".join(random.choices("ab", k=600)) for _ in range(3)]
    now_s = 0.0
    for number in range(60):
        now_s += random.expovariate(10.0)
        for drive in drives:
            drive.run(now_s)
            drive.now_s = now_s
        drive = random.choice(drives)
        drive.ask(f"r{number}", random.choice(texts)[: random.randint(1, 600)], "o" * random.randint(1, 40))
        if random.random() < 0.1:
            random.choice(drives).do(Abort(f"r{random.randint(0, number)}", exact=True))
        for each in drives:
            each.check()
        tier.check()
    for drive in drives:
        drive.run()
        drive.check()
        assert drive.core.idle
        assert drive.wake_s is None
    assert sum(len(drive.finished) for drive in drives) == 60
    assert sum(drive.core.pool.shared.loaded_pages for drive in drives) > 0
