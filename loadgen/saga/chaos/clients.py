"""Clients of the mesh under test: agent sessions of two tenants, one streamed step after another, over real HTTP.

Each client prefers one gateway. When that one dies under it, or says to ask again, it asks again, elsewhere if need be,
with the step's `Idempotency-Key`; it gives a step up only after `GIVE_UP_S`. Whatever it sees goes into the transcript.
Not the load generator: no trace, no think time but a short random one.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from random import Random

import aiohttp
import msgspec
from msgspec import Struct

from saga.chaos.asking import AGAIN_AFTER_S, Asking, Sign
from saga.chaos.transcript import SEED, Attempt, StepStory
from saga.load.client import GatewayClient

GIVE_UP_S = 90.0  # no fault takes that long
CONNECT_S = 15.0  # a gateway that is stopped takes connections no more once its backlog is full


class Shape(Struct, frozen=True):
    """What each session does. Tokens are characters."""

    steps: int = 10
    opening_tokens: int = 800
    new_tokens: int = 160  # of each later prompt, beside the answer
    output_tokens: int = 48
    think_s: float = 0.1  # mean


class Clients:
    """All clients of one asking. `run` until `stop`, then every step comes to its end."""

    def __init__(
        self,
        gateway_urls: Sequence[str],
        keys: Mapping[str, str],
        *,
        clients: int,
        seed: int,
        page_tokens: int,
        shape: Shape | None = None,
    ) -> None:
        """`keys`: API key by tenant; clients take tenants and gateways in turn."""
        self._urls = list(gateway_urls)
        self._keys = dict(keys)
        self._count = clients
        self._seed = seed
        self._page_tokens = page_tokens
        self._shape = shape or Shape()
        self._stopping = asyncio.Event()
        self._model = ""
        self.stories: list[StepStory] = []

    def stop(self) -> None:
        """No client begins another step."""
        self._stopping.set()

    async def run(self) -> None:
        """Returns when `stop` has been called and every step is over."""
        (key, *_) = self._keys.values()
        async with GatewayClient(self._urls[0], key) as gateway:
            self._model = (await gateway.models())[0].id
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http, asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._client(http, number), name=f"client {number}")

    async def _client(self, http: aiohttp.ClientSession, number: int) -> None:
        random = Random(f"{self._seed} {number}")
        tenant = list(self._keys)[number % len(self._keys)]
        gateway = number // len(self._keys) % len(self._urls)
        await asyncio.sleep(random.uniform(0.0, 1.0))
        session = 0
        while not self._stopping.is_set():
            await self._session(http, random, number, tenant, f"chaos-{self._seed}-{number}-{session}", gateway)
            session += 1

    async def _session(
        self, http: aiohttp.ClientSession, random: Random, client: int, tenant: str, name: str, gateway: int
    ) -> None:
        shape = self._shape
        prompt = _words(f"[{name}]", shape.opening_tokens, random)
        expected = 0
        for number in range(shape.steps):
            if self._stopping.is_set():
                return
            story = StepStory(
                client=client,
                tenant=tenant,
                session=name,
                number=number,
                prompt=prompt,
                max_tokens=shape.output_tokens,
                sent_s=time.monotonic(),
                expected_cached_tokens=expected,
            )
            self.stories.append(story)
            await self._step(http, story, gateway, final=number == shape.steps - 1)
            if not story.answered:
                return
            # The last token of an answer is never an input: its KV is not there.
            expected = (len(prompt) + shape.output_tokens - 1) // self._page_tokens * self._page_tokens
            prompt += story.text + _words(f"[{name}.{number}]", shape.new_tokens, random)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(random.expovariate(1 / shape.think_s)):
                    await self._stopping.wait()

    async def _step(self, http: aiohttp.ClientSession, story: StepStory, gateway: int, *, final: bool) -> None:
        """All attempts of a step."""
        body = msgspec.json.encode(
            {
                "model": self._model,
                "prompt": story.prompt,
                "max_tokens": story.max_tokens,
                "stream": True,
                "stream_options": {"include_usage": True},
                "ignore_eos": True,
                "seed": SEED,
            }
        )
        headers = {
            "Authorization": f"Bearer {self._keys[story.tenant]}",
            "Content-Type": "application/json",
            "X-Saga-Workflow": story.session,
            "X-Saga-Session": story.session,
            "X-Saga-Final": str(final).lower(),
            "Idempotency-Key": f"{story.session}-{story.number}",
        }
        sign = Sign(story)
        while True:
            asking = Asking(story, sign)
            again_after_s = AGAIN_AFTER_S
            began_s = time.monotonic()
            try:
                async with asyncio.timeout(max(0.1, story.sent_s + GIVE_UP_S - began_s)):
                    again_after_s = await asking.run(http, f"{self._urls[gateway]}/v1/completions", body, headers)
            except (aiohttp.ClientError, ConnectionError) as error:
                asking.over("cut", f"{type(error).__name__}: {error}")
            except TimeoutError as error:
                given_up = time.monotonic() >= story.sent_s + GIVE_UP_S
                asking.over("wrong" if given_up else "cut", str(error) or "no answer in time")
            except msgspec.MsgspecError as error:
                asking.over("wrong", f"unreadable: {error}")
            story.attempts.append(
                Attempt(
                    gateway=gateway,
                    sent_s=began_s,
                    over_s=time.monotonic(),
                    outcome=asking.outcome,
                    detail=asking.detail,
                    text=asking.text,
                    step_id=asking.step_id,
                )
            )
            if asking.outcome in ("answered", "wrong") or time.monotonic() >= story.sent_s + GIVE_UP_S:
                story.over_s = time.monotonic()
                return
            if asking.outcome == "cut":
                gateway = (gateway + 1) % len(self._urls)
            await asyncio.sleep(again_after_s)


def _words(name: str, tokens: int, random: Random) -> str:
    """ASCII that no other session says, of this length."""
    parts = [name]
    length = len(name)
    while length < tokens:
        word = f" {random.getrandbits(32):08x}"
        parts.append(word)
        length += len(word)
    return "".join(parts)[:tokens]
