"""Levels of things that come and go."""

from saga.runtime import metrics


def test_what_is_read_is_what_is_scraped_and_nothing_else():
    told = {"one": 1.5}
    metrics.levels("saga_test_levels", "Of something", "which", lambda: told)

    assert b'saga_test_levels{which="one"} 1.5' in metrics.render()
    told.clear()
    told["two"] = 2.0

    assert b'saga_test_levels{which="one"}' not in metrics.render()
    assert b'saga_test_levels{which="two"} 2.0' in metrics.render()


def test_the_last_reader_counts():
    metrics.levels("saga_test_reread", "Of something", "which", lambda: {"old": 1.0})
    metrics.levels("saga_test_reread", "Of something", "which", lambda: {"new": 1.0})

    assert b'which="old"' not in metrics.render()
    assert b'saga_test_reread{which="new"} 1.0' in metrics.render()
