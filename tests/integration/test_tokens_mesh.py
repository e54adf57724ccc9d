"""A gateway whose tokenizer is not its engines': placement learns the pages of sessions from the worker agents."""

import asyncio

import aiohttp
import pytest
from mesh_replay import model_of
from model_folder import write

from saga.cli.mesh import Mesh, MeshSettings
from saga.contract.messages import Grant, StepChain, StepReady
from saga.contract.subjects import Subjects
from saga.runtime.bus_nats import NatsBus

pytestmark = pytest.mark.timeout(120)
SYSTEM = {"role": "system", "content": "You compare stones, one by one, and say which is harder. " * 20}


async def test_placement_knows_what_is_resident_though_the_gateway_cannot_say(tmp_path):
    folder = write(tmp_path / "model")
    settings = MeshSettings(
        workers=2,
        speed=20.0,
        page_tokens=16,
        state_dir=tmp_path / "mesh",
        env={"gateway": {"SAGA_GATEWAY_TOKENIZERS": f"*={folder}"}},
    )
    heard = []
    async with Mesh(settings) as mesh, aiohttp.ClientSession() as http:
        bus = await NatsBus.connect(mesh.nats_url, name="test", cell=mesh.settings.cell)
        subjects = Subjects()
        for subject in (subjects.gateway("*"), subjects.gateway_word(), subjects.step_ready()):
            await bus.subscribe(subject, lambda incoming: heard.append(incoming.message))
        await bus.barrier()
        model = await model_of(http, mesh.gateway_url)
        talk = [SYSTEM, {"role": "user", "content": "Which stone is harder?"}]
        for turn in range(8):
            body = {"model": model, "messages": talk, "max_tokens": 8}
            headers = {"X-Saga-Session": "stones"}
            async with http.post(f"{mesh.gateway_url}/v1/chat/completions", json=body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                said = (await answer.json())["choices"][0]["message"]["content"]
            talk += [{"role": "assistant", "content": said}, {"role": "user", "content": f"And stone {turn}?"}]
            await asyncio.sleep(1.0)  # the engine's events are on their way
        await bus.close()

    steps = [message for message in heard if isinstance(message, StepReady)]
    grants = [message for message in heard if isinstance(message, Grant)]
    assert steps[0].pages_known
    assert not steps[-1].pages_known
    assert [message for message in heard if isinstance(message, StepChain)]
    assert grants[-1].worker_id == grants[0].worker_id
    assert grants[-1].cached_tokens > 0.8 * steps[-1].prompt_tokens > 800
