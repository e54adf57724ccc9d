"""Some thousand odd and broken requests at each run; `make fuzz` sends as many as one likes (docs/fuzzing.md)."""

import asyncio
import gc
import tracemalloc

import pytest
import uvloop
from fuzz_gateway import open_gateway
from fuzz_requests import request
from fuzz_run import found_in, fuzz, made
from fuzz_transport import Answer

SEED = 20_261_121
IN_MEMORY = 4_000
OVER_SOCKETS = 3_000
ROUND = 800
MAX_GROWTH_BYTES = 100_000  # in two rounds: the other bounded stores fill up meanwhile


def pytest_asyncio_loop_factories():
    """As the service."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize("model", [False, True], ids=["bytes", "model"])
async def test_whatever_is_sent_gets_an_answer_of_its_apis_shape_and_leaves_nothing_behind(model):
    result = await fuzz(SEED, IN_MEMORY, made(model=model))
    assert result["findings"] == []
    assert result["reached_an_engine"] > IN_MEMORY / 10


async def test_the_same_over_real_sockets():
    findings = []
    numbers = iter(range(OVER_SOCKETS))
    async with open_gateway() as gateway:

        async def client():
            for number in numbers:
                sent = request(SEED + 1, number)
                answer, wrong = await over_socket(sent, gateway.port)
                findings.extend(f"{number}: {what}" for what in found_in(sent, answer, wrong))

        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(client())
        findings += await gateway.settled()
        findings += gateway.complaints.seen + gateway.engine.problems
    assert findings == []


async def test_what_was_asked_before_takes_no_memory_when_it_is_asked_again():
    async with open_gateway(chain_bytes=50_000) as gateway:
        sizes = []
        tracemalloc.start()
        try:
            for _ in range(4):
                await all_of(gateway)
                await gateway.settled()
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    assert sizes[-1] - sizes[1] < MAX_GROWTH_BYTES, sizes


async def all_of(gateway):
    numbers = iter(range(ROUND))

    async def client():
        for number in numbers:
            await gateway.asked(request(SEED + 2, number))

    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(client())


async def over_socket(sent, port):
    """As Gateway.asked, through the system's sockets."""
    answer = Answer(without_body=sent.method == "HEAD")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    wrong = ""
    try:
        data = sent.head + sent.body
        end = len(data) if sent.leaves_after < 0 else sent.leaves_after
        start = 0
        for at in (*[piece for piece in sent.pieces if piece < end], end):
            writer.write(data[start:at])
            await writer.drain()
            start = at
        if sent.leaves_after >= 0:
            return answer, ""
        if sent.slow:
            await asyncio.sleep(0.05)
        async with asyncio.timeout(0.2 if sent.broken else 20):
            while not (answer.done or answer.malformed):
                piece = await reader.read(65_536)
                if not piece or 0 <= sent.leaves_within < answer.raw_bytes + len(piece):
                    break
                answer.feed(piece)
    except TimeoutError:
        wrong = "" if sent.broken else "no answer"
    except ConnectionError:  # refused before all of it was sent
        answer.malformed = ""
    finally:
        writer.transport.abort()
    return answer, wrong


@pytest.mark.parametrize("number", [0, 17, 4_711])
def test_a_request_of_a_seed_is_the_same_each_time(number):
    assert request(SEED, number) == request(SEED, number)
    assert request(SEED, number) != request(SEED + 1, number)
