"""Idempotency keys of requests that live at this gateway. Pure."""

from saga.contract.ids import TenantId
from saga.gateway.recognisers import checked


class RunningKeys:
    """A second request with a key is refused until the first has ended.

    Bounded by the requests in flight.
    """

    def __init__(self) -> None:
        self._live: set[tuple[TenantId, str]] = set()

    def claim(self, tenant: TenantId, key: str) -> bool:
        """Whether the key was free; it is taken then. Raises ApiError 400 for a key that is too long."""
        claim = (tenant, checked("Idempotency-Key", key))
        if claim in self._live:
            return False
        self._live.add(claim)
        return True

    def release(self, tenant: TenantId, key: str) -> None:
        """The request has ended, however it did."""
        self._live.discard((tenant, key))
