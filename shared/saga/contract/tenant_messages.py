"""What tenants use now, against what they may: asked by `saga tenants`, answered by the leading admission."""

import msgspec

from saga.contract.ids import TenantId
from saga.contract.tenants import TenantTerms
from saga.contract.vocabulary import Message


class TenantUse(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One tenant, now. Fields that are called as a quota are counted as that quota counts."""

    tenant: TenantId
    terms: TenantTerms = TenantTerms()
    weight: float = 1.0
    active_workflows: int = 0
    running_steps: int = 0
    waiting_steps: int = 0
    kv_tokens: int = 0
    input_tokens_per_minute: int = 0
    output_tokens_per_minute: int = 0
    known_workflows: int = 0  # dormant ones too
    held_for: str = ""  # the quota that its next step waits for; empty: none
    refused_steps: int = 0  # for a quota, since this leader leads
    queued_workflows: int = 0  # with a step, outside the active set


class TenantsAsk(Message, frozen=True, kw_only=True, gc=False):
    """What do tenants use? A request; in the order of their names, a page at a time."""

    tenant: str = ""  # only this one; empty: all
    after: str = ""  # a page begins after this name


class TenantsAnswer(Message, frozen=True, kw_only=True, gc=False):
    """One page."""

    tenants: tuple[TenantUse, ...]
    more: bool  # there are tenants after the last of these
    fence: int  # of admission
