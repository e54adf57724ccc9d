"""The HTTP edge: parses requests, asks for a grant, relays the engine's tokens. Many replicas."""
