"""`python -m saga.engine`: one simulated SGLang server, set up by SAGA_ENGINE_*."""

from saga.engine.config import PREFIX, EngineConfig
from saga.engine.http_server import serving
from saga.runtime import config, log
from saga.runtime.app import App, run


async def serve(app: App) -> None:
    """Serve until told to stop."""
    settings = config.load(EngineConfig, PREFIX)
    async with serving(settings) as running:
        if settings.port_file is not None:
            settings.port_file.write_text(f"{running.port}\n")
        log.get_logger().info(
            "engine.serving",
            url=running.url,
            profile=running.engine.core.profile.name,
            speed=settings.speed,
            shrink=settings.shrink,
            page_tokens=running.engine.core.profile.page_tokens,
            kv_tokens=running.engine.core.profile.kv_tokens,
            kv_events_port=running.publisher.port,
            kv_replay_port=running.publisher.replay_port,
        )
        await app.stopping.wait()


if __name__ == "__main__":
    run(serve, name="engine")
