"""What tenants use now, as `saga tenants usage` shows it. Reads the books, changes nothing. Called by `state.py`."""

from heapq import nsmallest
from typing import Final

from saga.admission.quotas import Quotas
from saga.admission.tenant_books import TenantBook, TenantBooks
from saga.contract.messages import TenantsAnswer, TenantsAsk
from saga.contract.tenant_messages import TenantUse

PAGE: Final = 256  # tenants in one answer, about 80 KiB at most


def answer(ask: TenantsAsk, books: TenantBooks, quotas: Quotas, fence: int, now_s: float) -> TenantsAnswer:
    """One page, in the order of names."""
    asked = [
        tenant
        for tenant, book in books.all().items()
        if tenant > ask.after and ask.tenant in ("", tenant) and not book.idle(now_s)
    ]
    page = nsmallest(PAGE, asked)
    found = tuple(_use(books.of(tenant), quotas) for tenant in page)
    return TenantsAnswer(tenants=found, more=len(asked) > len(page), fence=fence)


def _use(book: TenantBook, quotas: Quotas) -> TenantUse:
    return TenantUse(
        tenant=book.tenant,
        terms=book.terms,
        weight=quotas.weight_of(book.tenant),
        active_workflows=len(book.standing) if book.terms.active_workflows is not None else len(book.active),
        running_steps=len(book.running),
        waiting_steps=book.waiting,
        kv_tokens=book.kv_tokens,
        input_tokens_per_minute=book.input_minute.tokens,
        output_tokens_per_minute=book.output_minute.tokens + book.reserved_tokens,
        known_workflows=book.known,
        held_for=book.held_for if book.held or book.bench else "",
        refused_steps=book.refused,
        queued_workflows=len(book.standing.keys() - book.active.keys()) + len(book.bench),
    )
