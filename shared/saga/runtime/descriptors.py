"""As many open files as this process may have: a gateway holds two connections for each request that runs.

Shells and containers start processes with a soft limit of 1,024, so that programs that use select() do not break; ours
do not. Called by `app.run`, and by clients of many connections.
"""

import resource


def lift_file_limit() -> int:
    """Raise the soft limit to the hard one; what it is now. A system that refuses leaves it as it was."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # an unlimited hard limit is more than some kernels give
            return soft
    return hard
