"""Learns agent execution graphs from the steps of workflows and forecasts what follows. Off the critical path."""
