"""Where another tenant has its KV moves no step and is in no grant: placement tells nobody what others have cached."""

from hypothesis import given
from hypothesis import strategies as st
from placement_story import POOL, Story, admitted, step_id

from saga.contract.ids import RootId, SessionId, TenantId, WorkerId
from saga.contract.messages import Grant, PagesStored, ResidencyDelta, StepReady
from saga.contract.messages import StepAdmitted as Admitted
from saga.kv.pages import PageChain
from saga.placement.pricing import Priced

PAGE = 16
WORDS = b"".join((number * 7 % 50_000).to_bytes(4, "little") for number in range(1_280))  # 80 pages


def pages(tenant: str, words: bytes = WORDS) -> bytes:
    """Their hashes, as the gateway and that tenant's engines make them."""
    return PageChain(PAGE, tenant).extended(words).hashes


def step_of(tenant: str, number: int = 1, session: str = "mine") -> Admitted:
    """The same prompt, whoever asks."""
    given = admitted(number, session=f"{tenant}/{session}", prompt=1_280, new_hashes=pages(tenant), new_session=True)
    ready = {name: getattr(given.step, name) for name in StepReady.__struct_fields__}
    ready |= {"tenant": TenantId(tenant), "root": RootId(f"{tenant}/{session}"), "step_id": step_id(number)}
    ready |= {"session": SessionId(f"{tenant}/{session}"), "pool": POOL}
    return Admitted(step=StepReady(**ready), tag=given.tag, fence=given.fence, new_session=True)


def granted(asker: str, holder: str, worker: str, *, workers: int = 3) -> Grant:
    """What `asker` is granted while `worker` holds the prompt's pages as `holder` has them; nobody: no pages."""
    story = Story(Priced(), workers=workers)
    if holder:
        stored = (PagesStored(pages(holder)),)
        story.hear(ResidencyDelta(worker_id=WorkerId(worker), epoch=1, seq=1, changes=stored))
    (grant,) = story.hear(step_of(asker))
    assert isinstance(grant, Grant)
    return grant


@given(worker=st.sampled_from(["w0", "w1", "w2"]))
def test_a_grant_is_the_same_wherever_another_tenant_has_the_prompt_and_if_nobody_has_it(worker: str):
    assert granted("blue", "red", worker) == granted("blue", "", worker)


@given(worker=st.sampled_from(["w0", "w1", "w2"]))
def test_while_the_tenant_who_has_it_there_is_sent_there(worker: str):
    grant = granted("red", "red", worker)

    assert (grant.worker_id, grant.cached_tokens) == (worker, 1_280 - PAGE), "the last page is always computed"


def test_two_tenants_who_call_their_session_alike_share_no_home():
    story = Story(Priced(), workers=3)
    (first,) = story.hear(step_of("red", 1))
    story.take(first)
    story.finish(first)
    stored = (PagesStored(pages("red")),)
    story.hear(ResidencyDelta(worker_id=first.worker_id, epoch=1, seq=1, changes=stored))

    (other,) = story.hear(step_of("blue", 2))

    assert isinstance(other, Grant)
    assert (other.new_session, other.ran_at, other.cached_tokens) == (True, "", 0)
