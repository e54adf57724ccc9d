"""Times that a server would have if it were exactly a profile, with noise and with some far too long."""

from collections.abc import Iterator
from random import Random

import msgspec

from saga.engine.measurements import DecodeTime, PrefillTime, Time, points
from saga.engine.profile import Profile
from saga.engine.timing import IterationTimer


def settings(profile: Profile) -> Iterator[Time]:
    """What bench/gpu/measure.py asks, about."""
    for power in range(6, 15):
        yield PrefillTime(1 << power, 0, 1.0)
    for cached_tokens in (4_096, 16_384):
        for new_tokens in (512, 2_048, 8_192):
            yield PrefillTime(cached_tokens + new_tokens, cached_tokens, 1.0)
    for prompt_tokens in (128, 512, 2_048, 8_192):
        for batch in (1, 2, 4, 8, 16, 32, 64, 128):
            if batch * (prompt_tokens + 128) < 0.6 * profile.kv_tokens:
                yield DecodeTime(batch, prompt_tokens, 128, 1.0)


def times(
    profile: Profile, *, noise: float = 0.0, strays: float = 0.0, seed: int = 1, repetitions: int = 3
) -> list[Time]:
    """`noise`: standard deviation of the logarithm; `strays`: share of the settings that took three times as long."""
    random, timer = Random(seed), IterationTimer(profile)
    made: list[Time] = []
    wanted = list(settings(profile))
    for setting, point in zip(wanted, points(wanted, profile.chunk_tokens), strict=True):
        seconds = sum(each.count * timer.iteration_s(each.load) for each in point.passes)
        seconds *= 3 if random.uniform(0, 1) < strays else 1
        for _ in range(repetitions):
            noisy = seconds * random.lognormvariate(0, noise)
            made.append(msgspec.structs.replace(setting, seconds=noisy))
    return made
