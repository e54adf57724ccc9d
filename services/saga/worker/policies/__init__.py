"""Retention policies, one to a file. What they have in common is `saga.worker.idle`, their names `retention`."""
