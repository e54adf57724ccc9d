"""The systems compared: each a few lines of policy on our own cores. What each stands for: `docs/evaluation.md`."""
