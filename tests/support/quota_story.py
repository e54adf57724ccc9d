"""Short words for a tenant with quotas. Shared by the tests of `unit/admission`."""

from admission_story import Story

from saga.admission.events import TenantChanged
from saga.admission.policy import Everybody
from saga.admission.quotas import TAKEOVER_S
from saga.contract.ids import TenantId
from saga.contract.messages import (
    Refused,
    StepAdmitted,
    StepRefused,
    TenantsAsk,
)
from saga.contract.tenants import TenantTerms


def agreed(policy=None, *, workers=1, **quotas) -> Story:
    """A story in which tenant `t` has these quotas, and the leader is no longer new."""
    story = Story(policy or Everybody(), workers=workers)
    story.now_s += TAKEOVER_S
    change(story, **quotas)
    return story


def change(story: Story, tenant: str = "t", **quotas):
    return story.tell(TenantChanged(TenantId(tenant), TenantTerms(**quotas)))


def admitted_in(messages) -> list[int]:
    return [int(m.step.step_id, 16) for m in messages if isinstance(m, StepAdmitted)]


def refusal(messages) -> Refused | StepRefused:
    (refused,) = [m for m in messages if isinstance(m, Refused | StepRefused)]
    return refused


def waited_in(messages) -> list[str]:
    return [m.waited for m in messages if isinstance(m, StepAdmitted)]


# --- each quota ------------------------------------------------------------------------------------------------------


def usage(story: Story, *first):
    for message in first:
        story.hear(message)
    (answer,) = story.hear(TenantsAsk(tenant="t"))
    (use,) = answer.tenants
    return use
