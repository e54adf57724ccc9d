"""What leaders and the graph say to gateways and workers."""

from typing import Final, Literal

from saga.contract.ids import RootId, SessionId, StepId, WorkerId
from saga.contract.vocabulary import Message, ReleaseReason


class LeaderHello(Message, frozen=True, kw_only=True, gc=False):
    """A new leader is up: gateways send their waiting steps and running leases again, to it."""

    service: Literal["admission", "placement"]
    fence: int


class ResendSteps(Message, frozen=True, kw_only=True, gc=False):
    """The sender does not know these steps, which a GatewayBeat named: tell it again.

    To a gateway (StepReady of what waits, StepClaim of what runs), or from placement to admission (StepAdmitted).
    """

    service: Literal["admission", "placement"]
    fence: int
    step_ids: tuple[StepId, ...]


class SessionsReleased(Message, frozen=True, kw_only=True, gc=False):
    """These sessions have no claim to their KV there: close their tags, once no lease of theirs is out."""

    worker_id: WorkerId
    sessions: tuple[SessionId, ...]
    reason: ReleaseReason
    fence: int  # of `by`

    @property
    def by(self) -> Literal["admission", "placement"]:
        """Whose leader says so."""
        return "placement" if self.reason in ("moved", "superseded") else "admission"


GAP_SHARES: Final = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)  # of the gaps that `gap_quantiles_s` lies above
# What graph, admission and workers alike expect of a session of which nothing is learnt, also when there is no graph to
# say so: agent tools mostly take a second, people minutes.
UNKNOWN_GAPS_S: Final = (0.1, 0.2, 0.5, 1.0, 3.0, 10.0, 30.0, 300.0)  # at GAP_SHARES
UNKNOWN_RETURNS: Final = 0.9


class Forecast(Message, frozen=True, kw_only=True, gc=False):
    """What a session will do after the step that just ended. Published once; read it against the elapsed gap."""

    root: RootId
    session: SessionId
    step_id: StepId
    worker_id: WorkerId  # the session's home
    returns: float  # probability that another step follows
    gap_p50_s: float
    gap_p90_s: float
    gap_p95_s: float
    gap_p99_s: float
    new_tokens: float  # mean growth of the prompt by the next step
    remaining_steps: float  # mean, of this session
    remaining_engine_s: float  # modelled, of this session
    samples: int  # gaps learned from; 0: defaults
    gap_quantiles_s: tuple[float, ...] = ()  # at GAP_SHARES, given that it returns; empty: an older graph service
