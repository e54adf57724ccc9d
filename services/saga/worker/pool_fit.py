"""Whether a worker may be in its pool: two page sizes, and no page hash means the same to all; two of one id, and no
word can be told from the other's. Pure.

The agent asks for each other worker that it hears of just after it attached, so it is the newcomer that goes.
"""

from saga.contract.messages import Heartbeat, Message, WorkerHello


def misfit(mine: WorkerHello, heard: Message) -> str:
    """What keeps me out of the pool, with the flag to set; empty when nothing does. The older incarnation stays."""
    other = heard.worker if isinstance(heard, Heartbeat) else heard
    if not isinstance(other, WorkerHello):
        return ""
    newer = (mine.epoch, mine.worker_id) > (other.epoch, other.worker_id)
    if other.worker_id == mine.worker_id:
        return _taken(mine, other) if newer and other.engine_url != mine.engine_url else ""
    if other.pool != mine.pool:
        return ""
    if other.page_tokens == mine.page_tokens or not newer:
        return ""
    return (
        f"{mine.engine_url} has pages of {mine.page_tokens} tokens, but worker {other.worker_id} of the same pool "
        f"{mine.pool!r} has pages of {other.page_tokens}: start it with --page-size {other.page_tokens}, or as another "
        "pool with another --served-model-name"
    )


def _taken(mine: WorkerHello, other: WorkerHello) -> str:
    return (
        f"worker id {mine.worker_id!r} is taken by the worker of {other.engine_url}: start the one of "
        f"{mine.engine_url} with another SAGA_WORKER_ID, or end the other first"
    )
