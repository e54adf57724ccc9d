"""What one step has cost its tenant so far. Made and changed by `fairness.py`, kept with the step."""

import msgspec

from saga.contract.ids import TenantId


class Charge(msgspec.Struct, gc=False):
    """The charge of one step."""

    tenant: TenantId
    start_s: float  # its tag: virtual time
    weight: float  # of its tenant when it was tagged: all that it will ever cost is divided by this
    cost_s: float  # modelled engine-seconds
    waits: bool = True  # for a slot

    @property
    def normalised_s(self) -> float:
        """Engine-seconds per unit of weight."""
        return self.cost_s / self.weight
