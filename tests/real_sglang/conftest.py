"""Real SGLang servers, in the environment that `make sglang-cpu` builds. Collected only when this folder is named."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from sglang_server import ENVIRONMENT

HERE = Path(__file__).parent


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Servers take minutes: `make test` is not for them."""
    wanted = any(HERE in [path := Path(arg.split("::")[0]).resolve(), *path.parents] for arg in config.args)
    return None if wanted else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say at once what is missing, and be patient with the rest."""
    ours = [item for item in items if HERE in item.path.parents]
    if ours and not (ENVIRONMENT / "tiny-model").is_dir():
        pytest.exit("there is no SGLang to test against: make sglang-cpu", returncode=2)
    for item in ours:
        item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def until():
    """Waits for something outside this process that nobody tells us about: `await until(condition)`."""

    async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.02)

    return until
