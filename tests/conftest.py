"""What holds for every test: property tests draw the same examples each time, so that none is flaky."""

from hypothesis import settings

settings.register_profile("saga", deadline=None, derandomize=True)
settings.load_profile("saga")
