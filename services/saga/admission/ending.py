"""Workflows and sessions that are over: by their client's word, or by silence. Called by `state.py`.

The word may overtake the end of the last step, so nothing is let go while a step of it runs. Silence proves nothing:
who is closed by it is only struck from the books, and its KV left to what the workers make of it.
"""

from saga.admission.records import Session, Workflow
from saga.admission.roster import Roster
from saga.contract.messages import WorkflowEnded


def mark(ended: WorkflowEnded, roster: Roster) -> Workflow | None:
    """The workflow, which knows now what is over; None: there is no such workflow of this tenant."""
    workflow = roster.workflows.get(ended.root)
    if workflow is None or workflow.tenant != ended.tenant:
        return None
    if not ended.session:
        workflow.final = True
    elif ended.session in workflow.sessions:
        workflow.sessions[ended.session].over = True
    return workflow


def fell_silent(workflow: Workflow, now_s: float, idle_close_s: float, infer_end_s: float) -> bool:
    """Whether it counts as over. Soonest when each of its sessions has answered without calling a tool, and stays away
    longer than forecast (it is dormant), and for `infer_end_s` at least; 0: never so."""
    if workflow.steps:
        return False
    silent_s = now_s - workflow.last_sign_s
    if silent_s > idle_close_s:
        return True
    done = 0 < infer_end_s < silent_s and all(session.answered for session in workflow.sessions.values())
    return done and workflow.dormant(now_s)


def take_out(workflow: Workflow) -> list[Session]:
    """Its sessions that are over, now that none of their steps runs."""
    over = [session for session in workflow.sessions.values() if session.over and not session.live_steps]
    for session in over:
        del workflow.sessions[session.session]
    return over
