"""A worker that could run a step, as policies of placing and stealing see it."""

import msgspec

from saga.contract.ids import WorkerId


class Candidate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Now, or when a slot frees."""

    worker_id: WorkerId
    is_home: bool = False  # of the step's session, or of its workflow when that has run nowhere
    cached_tokens: int  # of the step's prompt, resident there
    shared_tokens: int = 0  # of the step's prompt after those: in a tier that it shares with others, read from there
    coming_tokens: int = 0  # of the step's prompt, in those that run there now: resident once they are prefilled
    leases: int
    slots: int = 1 << 30  # leases that it takes at most, look-ahead included
    leased_tokens: int = 0  # KV set aside for them
    queued_steps: int = 0  # that wait there for a slot
    leased_engine_s: float  # modelled work of what runs there
    queued_engine_s: float  # and of what waits there for a slot; of a step's own home: what waits in front of it
    behind_engine_s: float = 0.0  # of a step's own home: what its leaving spares those behind it, all together
    homed_tokens: int  # context of the sessions at home there
    homed_sessions: int
    kv_tokens: int
    prompt_s_per_token: float
    output_s_per_token: float = 0.0
    context_s_per_token: float = 0.0
    load_s_per_token: float = 0.0  # from its host tier; 0: there is none
    shared_load_s_per_token: float = 0.0  # from a tier that it shares
    speed: float = 1.0  # engine-seconds per second
