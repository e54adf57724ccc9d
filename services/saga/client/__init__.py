"""SAGA for Python programs: clients that say which workflow they work for. HTTP only; knows no other part of SAGA.

    from saga.client import workflow

    with workflow("fix-issue-123", deadline_s=600) as wf:
        wf.openai.chat.completions.create(model="tiny", messages=[...])

See docs/clients.md.
"""

from saga.client.errors import ExtraMissingError, GatewayError
from saga.client.gateway import Gateway
from saga.client.receipts import Receipt
from saga.client.sessions import Session
from saga.client.workflows import Workflow, workflow

__all__ = ["ExtraMissingError", "Gateway", "GatewayError", "Receipt", "Session", "Workflow", "workflow"]
