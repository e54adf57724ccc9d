"""A server that answers as SGLang with the times of a profile, without waiting for them: for bench/gpu."""

from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from saga.engine.profile import Profile
from saga.engine.timing import IterationLoad, IterationTimer, prefill_pairs

EPOCH_S = 1_000_000_000.0


class MeasuredServer:
    """`alter` may change an answer's meta_info, by the number of the request; None: the request fails."""

    def __init__(self, profile: Profile, model: Path, alter: Callable[[int, dict], dict | None] | None = None) -> None:
        self.info = {
            "version": "0.5.23",
            "model_path": str(model),
            "served_model_name": profile.model,
            "max_total_num_tokens": profile.kv_tokens,
            "page_size": profile.page_tokens,
            "chunked_prefill_size": profile.chunk_tokens,
            "max_req_input_len": profile.context_tokens - 6,
            "internal_states": [{"effective_max_running_requests_per_dp": profile.max_running}],
            "enable_metrics": True,
        }
        self.asked = 0
        self._profile = profile
        self._timer = IterationTimer(profile)
        self._alter = alter or (lambda _, meta: meta)
        self._pages: set[tuple[int, ...]] = set()  # prompts up to the end of each page
        self._now_s = EPOCH_S

    def app(self) -> web.Application:
        """Its routes."""
        app = web.Application(client_max_size=1 << 28)
        app.router.add_get("/server_info", self._server_info)
        app.router.add_post("/generate", self._generate)
        app.router.add_post("/flush_cache", self._flush)
        return app

    async def _server_info(self, _: web.Request) -> web.Response:
        return web.json_response(self.info)

    async def _flush(self, _: web.Request) -> web.Response:
        self._pages.clear()
        return web.Response(text="Cache flushed.")

    async def _generate(self, request: web.Request) -> web.Response:
        body = await request.json()
        new_tokens = body["sampling_params"]["max_new_tokens"]
        prompts = body["input_ids"]
        metas = [self._prefill(prompt) for prompt in prompts]
        context_tokens = sum(len(prompt) for prompt in prompts)
        for _ in range(new_tokens - 1):
            context_tokens += len(prompts)
            self._now_s += self._timer.decode_pass_s(len(prompts), context_tokens)
        self.asked += 1
        answers = []
        for meta in metas:
            meta |= {"request_finished_ts": self._now_s, "completion_tokens": new_tokens, "num_retractions": 0}
            meta_info = self._alter(self.asked, meta)
            if meta_info is None:
                return web.json_response({"error": {"message": "out of memory"}}, status=500)
            answers.append({"output_ids": [1], "meta_info": meta_info})
        return web.json_response(answers)

    def _prefill(self, prompt: list[int]) -> dict:
        size = self._profile.page_tokens
        ends = range(size, len(prompt) + 1, size)
        cached_tokens = max(
            (end for end in ends if end < len(prompt) and tuple(prompt[:end]) in self._pages), default=0
        )
        self._pages.update(tuple(prompt[:end]) for end in ends)
        started_s, start = self._now_s, cached_tokens
        while start < len(prompt):
            chunk = min(self._profile.chunk_tokens, len(prompt) - start)
            self._now_s += self._timer.iteration_s(IterationLoad(chunk, prefill_pairs(start, chunk), start))
            start += chunk
        return {
            "prompt_tokens": len(prompt),
            "cached_tokens": cached_tokens,
            "forward_entry_time": started_s,
            "prefill_finished_time": self._now_s,
        }
