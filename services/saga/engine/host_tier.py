"""The host KV tier's books and its link: what crossed, and how long a load takes while copies are written back.

After SGLang's HiCache with write-through: each new page is copied to host memory, pages whose prefix goes on there are
loaded back when their request starts, layer by layer while the iteration computes. A page counts as copied at once; its
bytes use the link afterwards. Which pages are where is the radix tree's. Kept by the pool, timed by Batch.
"""

from saga.engine.profile import Profile


class HostTier:
    """One engine's. `pages`: its size."""

    __slots__ = (
        "_both_bytes_per_s",
        "_busy_until_s",
        "_bytes_per_s",
        "_loading_pages",
        "_now_s",
        "_page_bytes",
        "_write_bytes",
        "hits",
        "loaded_pages",
        "pages",
        "written_pages",
    )

    def __init__(self, profile: Profile, host_kv_tokens: int) -> None:
        """Raises ValueError for a size that SGLang refuses, or a profile without a host link."""
        self.pages = host_kv_tokens // profile.page_tokens
        if self.pages <= profile.kv_pages:
            raise ValueError(
                f"host_kv_tokens {host_kv_tokens:,} must exceed kv_tokens {profile.kv_tokens:,}: all of the device is "
                "written through"
            )
        if not profile.host_bytes_per_s or not profile.host_bytes_per_s_both:
            raise ValueError(f"profile {profile.name} has no host_bytes_per_s or host_bytes_per_s_both: no host tier")
        self.hits = 0
        """Requests that loaded something back when they started."""
        self.loaded_pages = 0
        self.written_pages = 0
        self._page_bytes = profile.page_tokens * profile.kv_bytes_per_token
        self._bytes_per_s = profile.host_bytes_per_s
        self._both_bytes_per_s = profile.host_bytes_per_s_both
        self._now_s = 0.0
        self._write_bytes = 0.0
        """Still to be written at `_now_s`."""
        self._busy_until_s = 0.0
        """Up to then a load shares the link."""
        self._loading_pages = 0

    def write(self, pages: int, now_s: float) -> None:
        """New pages are to be copied to the host."""
        self._advance(now_s)
        self.written_pages += pages
        self._write_bytes += pages * self._page_bytes

    def load(self, pages: int) -> None:
        """A request that starts takes that many pages from the host, in the next iteration."""
        self.hits += 1
        self.loaded_pages += pages
        self._loading_pages += pages

    def begin(self, now_s: float) -> float:
        """An iteration begins with the loads asked for since the last: how long they take beside what is written."""
        self._advance(now_s)
        left_bytes = self._loading_pages * self._page_bytes
        self._loading_pages = 0
        if not left_bytes:
            return 0.0
        both_bytes = min(left_bytes, self._write_bytes)
        seconds = both_bytes / self._both_bytes_per_s + (left_bytes - both_bytes) / self._bytes_per_s
        self._busy_until_s = now_s + seconds
        return seconds

    def _advance(self, now_s: float) -> None:
        """What was written meanwhile."""
        if self._write_bytes:
            shared_s = max(0.0, min(now_s, self._busy_until_s) - self._now_s)
            written = shared_s * self._both_bytes_per_s + (now_s - self._now_s - shared_s) * self._bytes_per_s
            self._write_bytes = max(0.0, self._write_bytes - written)
        self._now_s = now_s
