"""Faults done to a mesh of real processes under load, and what must hold after each: `make chaos`."""
