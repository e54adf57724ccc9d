"""Cache policies against true limits on a fixed, open-loop access trace: `saga bench cache`."""
