"""Whether a worker may be in its pool: with two page sizes in it, no page hash would mean the same to all. Pure.

The agent asks for each other worker that it hears of just after it attached, so it is the newcomer that goes.
"""

from saga.contract.messages import Heartbeat, Message, WorkerHello


def misfit(mine: WorkerHello, heard: Message) -> str:
    """What keeps me out of the pool, with the flag to set; empty when nothing does. The older incarnation stays."""
    other = heard.worker if isinstance(heard, Heartbeat) else heard
    if not isinstance(other, WorkerHello) or other.worker_id == mine.worker_id or other.pool != mine.pool:
        return ""
    newer = (mine.epoch, mine.worker_id) > (other.epoch, other.worker_id)
    if other.page_tokens == mine.page_tokens or not newer:
        return ""
    return (
        f"{mine.engine_url} has pages of {mine.page_tokens} tokens, but worker {other.worker_id} of the same pool "
        f"{mine.pool!r} has pages of {other.page_tokens}: start it with --page-size {other.page_tokens}, or as another "
        "pool with another --served-model-name"
    )
