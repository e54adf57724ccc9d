"""A process may have as many open files as the system allows it."""

import resource
import subprocess
import sys

LIFT = """
import resource
from saga.runtime.descriptors import lift_file_limit
print(lift_file_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def test_the_soft_limit_is_lifted_to_the_hard_one():
    hard = min(2_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))

    told = subprocess.run([sys.executable, "-c", LIFT], preexec_fn=few, capture_output=True, text=True, check=True)

    assert told.stdout.split() == [str(hard), str(hard)]
