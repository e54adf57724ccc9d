"""A Docker engine of the tests' own and the images of this tree. Collected only when this folder is named."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker_engine
import docker_images
import pytest
from docker_engine import DockerEngine, Network, NoDockerError

HERE = Path(__file__).parent
TREE = HERE.parents[1]


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Installing, building and starting takes minutes: `make test` is not for them."""
    wanted = any(HERE in [path := Path(arg.split("::")[0]).resolve(), *path.parents] for arg in config.args)
    return None if wanted else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test pays for all that is built."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def engine() -> Iterator[DockerEngine]:
    """With the images of this tree, in a network of its own. Skips, saying why, where none can be started.

    SAGA_DOCKER_ROOT names a folder that keeps what was built for the next time.
    """
    with tempfile.TemporaryDirectory(prefix="saga-docker-", ignore_cleanup_errors=True) as folder:
        root = Path(os.environ.get("SAGA_DOCKER_ROOT") or folder)
        try:
            docker_engine.install()
            with DockerEngine(root) as builder:
                for left in builder.docker("ps", "--all", "--quiet").split():  # by a run that was cut short
                    builder.docker("rm", "--force", "--volumes", left)
                docker_images.build(builder, TREE)
            network = Network()
        except NoDockerError as reason:
            pytest.skip(f"no composed cluster can be tested here: {reason}")
        try:
            with DockerEngine(root, network) as running:
                yield running
        finally:
            network.close()
