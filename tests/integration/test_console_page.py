"""The console's page in a real headless Chromium: what it shows, keys, pause, search, themes, narrow, many workflows.

Skipped, with that word, where no Chromium is installed: `make chromium`.
"""

import asyncio
import io

import pytest
from chromium import Chromium, installed
from console_process import console, spoken
from console_story import remembered
from PIL import Image

from saga.contract.subjects import Subjects
from saga.graph.config import GraphConfig
from saga.graph.service import Graph
from saga.runtime.app import App
from saga.runtime.bus_nats import NatsBus
from saga.runtime.clock import MonotonicClock
from saga.runtime.config import Shared

pytestmark = pytest.mark.skipif(not installed(), reason="no Chromium here: `make chromium` installs Debian's")

VIEW = "window.saga"


@pytest.fixture
async def browser():
    """One browser."""
    async with Chromium() as made:
        yield made


@pytest.fixture
async def page(nats_url, browser):
    """A page on a cell of 40 workflows that has spoken for a moment."""
    async with (
        spoken(nats_url, workflows=40, workers=3, steps_per_s=12, slots=6, pressure=1.2, seed=3),
        console(nats_url) as made,
    ):
        opened = await browser.open(f"http://127.0.0.1:{made.port}/")
        await opened.until(f"{VIEW}?.store.flows.size >= 30 && {VIEW}.store.totals")
        yield opened
        assert opened.complaints == []


def text(selector):
    """A script for what stands there."""
    return f"document.querySelector({selector!r}).innerText"


def colours(png):
    """How many there are in a picture: of an empty page very few."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    return {colour for count, colour in image.getcolors(2**20) if count > 40}


async def test_the_page_shows_workers_workflows_tenants_and_decisions(page):
    await page.until("document.querySelectorAll('.tenant').length == 5")
    await page.until("document.querySelectorAll('#decisions li').length > 3")

    assert await page.run(text("#cell")) == "cell main"
    assert await page.run(text("#live")) == "live"
    figures = await page.until(f"Number({VIEW}.store.totals.steps_per_s) > 2 && {text('#figures')}")
    assert figures.split("\n")[:2] == ["workers", "3"]
    assert await page.run("[...document.querySelectorAll('.worker .name')].map(n => n.innerText)") == ["w0", "w1", "w2"]
    acme = await page.run(text(".tenant"))
    assert acme.startswith("acme\n")
    assert " of " in acme
    assert len(colours(await page.picture())) > 12


async def test_lanes_hold_steps_gaps_and_waits(page):
    seen = await page.until(
        f"""(() => {{
          const steps = [...{VIEW}.store.flows.values()].flatMap(flow => flow.list);
          const waits = steps.filter(step => step.start_s - step.ready_s > 0.2).length;
          const over = steps.filter(step => step.phase === 'finished' && step.end_s > step.start_s).length;
          return waits > 2 && over > 20 && {VIEW}.lanes.rows.length;
        }})()"""
    )
    assert seen >= 30


async def test_keys_choose_open_and_close_a_workflow(page):
    await page.press("j")
    await page.press("j")
    chosen = await page.run(f"{VIEW}.chosen.root")
    assert chosen == await page.run(f"{VIEW}.lanes.rows[1].root")
    assert chosen in await page.run("document.getElementById('chosen').textContent"), "said to screen readers"

    await page.press("Enter")
    await page.until("!document.getElementById('drawer').hidden")
    assert chosen.endswith(await page.run(text("#drawer-title")))
    await page.until("document.querySelectorAll('#drawer .steps tbody tr').length > 0")
    assert "KV tokens" in await page.run(text("#drawer .facts"))

    await page.press("Escape")
    assert await page.run("document.getElementById('drawer').hidden") is True


async def test_one_workflows_graph_is_drawn_with_probabilities(nats_url, page):
    async with asyncio.TaskGroup() as group:
        app = App("graph", Shared(), group)
        bus = await NatsBus.connect(nats_url, name="graph", cell="main")
        living = app.spawn(Graph(GraphConfig(id="graph"), bus, MonotonicClock()).live(app), name="graph")
        await page.press("j")
        await page.press("Enter")
        drawn = await page.until("document.querySelector('#drawer .drawing svg')?.textContent.includes('%') && 'drawn'")
        assert drawn == "drawn"
        fill = await page.run("getComputedStyle(document.querySelector('#drawer .saga .box, #drawer .saga .end')).fill")
        assert fill != "rgb(0, 0, 0)", "the page's style holds for it"
        app.stopping.set()
        await living
        app.cancel_all()
        await bus.close()


async def test_a_step_is_explained_below_its_row(nats_url, page):
    bus = await NatsBus.connect(nats_url, name="placement", cell="main")

    async def answer(incoming):
        await incoming.respond(remembered(incoming.message.step_id))

    await bus.subscribe(Subjects("main").placement_ask(), answer)
    await page.press("j")
    await page.press("Enter")
    await page.until("document.querySelectorAll('#drawer .step').length > 0")
    await page.run("document.querySelector('#drawer .step').click()")
    said = await page.until(f"document.querySelector('.whybox table') && {text('.whybox')}")

    assert "granted w1" in said
    assert "cheapest start; cost 1.5 s" in said
    assert "draining" in said
    await bus.close()


async def test_search_narrows_lanes_and_escape_widens_them(page):
    await page.press("/")
    await page.type("tenant:acme")
    await page.until(f"{VIEW}.lanes.rows.length > 0 && {VIEW}.lanes.rows.every(flow => flow.tenant === 'acme')")
    await page.run("document.getElementById('search').value = ''")
    await page.type("nothing-like-this")
    await page.until("!document.getElementById('empty').hidden")
    assert await page.run(text("#empty")) == "No workflow matches."

    await page.press("Escape")

    await page.until(f"{VIEW}.lanes.rows.length >= 30")


async def test_a_click_on_a_worker_or_a_tenant_searches_for_it(page):
    await page.until("document.querySelectorAll('.worker .name').length == 3")
    await page.run("document.querySelector('.worker .name').click()")
    assert await page.run("document.getElementById('search').value") == "worker:w0"
    await page.until(f"{VIEW}.lanes.rows.length > 0 && {VIEW}.lanes.rows.length < 30")


async def test_states_and_spans_are_chosen_by_key(page):
    await page.press("2")
    await page.until(f"{VIEW}.lanes.rows.every(flow => ['running', 'gap'].includes(flow.state))")
    assert await page.run("document.querySelector('#states [aria-pressed=true]').innerText.split(/\\s/)[0]") == "Active"
    await page.press("+")
    assert await page.run(f"{VIEW}.span") == 60


async def test_a_pause_freezes_the_picture_and_ends_the_stream(page):
    await page.run("document.activeElement.blur()")
    await page.press(" ")
    await page.until(f"{text('#live')} === 'paused'")
    await asyncio.sleep(0.5)
    before = await page.run(f"[{VIEW}.store.now_s, {VIEW}.lanes.drawnAt]")
    await asyncio.sleep(1.5)
    assert await page.run(f"[{VIEW}.store.now_s, {VIEW}.lanes.drawnAt]") == before

    await page.press(" ")

    await page.until(f"{VIEW}.store.now_s > {before[0]} + 1.5 && {text('#live')} === 'live'")


async def test_light_and_dark_differ_and_are_remembered(page):
    light = await page.run("getComputedStyle(document.body).backgroundColor")
    await page.press("t")
    dark = await page.run("getComputedStyle(document.body).backgroundColor")

    assert sum(map(int, light[4:-1].split(","))) > 600
    assert sum(map(int, dark[4:-1].split(","))) < 150
    loaded = page.event("Page.loadEventFired")
    await page.call("Page.reload")
    await loaded
    await page.until(f"{VIEW}?.store.flows.size > 0")
    assert await page.run("document.documentElement.dataset.theme") == "dark"


async def test_on_a_narrow_screen_nothing_sticks_out(page):
    await page.size(390, 800)
    await page.until("document.querySelectorAll('.tenant').length == 5")

    assert await page.run("document.documentElement.scrollWidth") <= 390
    assert await page.run("document.getElementById('lanes').clientHeight") > 250


async def test_keys_are_explained(page):
    await page.press("?")
    assert "light or dark" in await page.run(text("#keys"))
    await page.press("Escape")
    assert await page.run("document.getElementById('keys').open") is False


async def test_a_thousand_workflows_can_be_scrolled_and_searched(nats_url, browser):
    async with spoken(nats_url, workflows=1_000, workers=8, steps_per_s=60, slots=80), console(nats_url) as made:
        page = await browser.open(f"http://127.0.0.1:{made.port}/")
        await page.until(f"{VIEW}?.store.flows.size >= 600", 60)
        await page.until(f"{VIEW}.lanes.rows.length >= 600")
        assert await page.run("document.querySelectorAll('*').length") < 1_500, "rows out of sight cost no elements"
        await page.run("document.getElementById('lanes').scrollTop = 600 * 22 - 400")
        await asyncio.sleep(0.5)
        assert len(colours(await page.picture())) > 8
        await page.press("/")
        await page.type("blue-fox")
        await page.until(
            f"{VIEW}.lanes.rows.length > 50 && {VIEW}.lanes.rows.every(flow => flow.tenant === 'blue-fox')"
        )
        assert page.complaints == []


async def test_a_page_that_lost_its_console_says_so_and_comes_back(nats_url, browser):
    async with spoken(nats_url, workflows=10, steps_per_s=5):
        async with console(nats_url) as made:
            port = made.port
            page = await browser.open(f"http://127.0.0.1:{port}/")
            await page.until(f"{VIEW}?.store.flows.size > 0")
        await page.until(f"{text('#live')} === 'the console does not answer'")
        async with console(nats_url, port=port):
            await page.until(f"{text('#live')} === 'live' && {VIEW}.store.flows.size > 0")
