"""KV vocabulary shared by engines, workers, placement and gateways: tokens, page hashes, residency. Pure."""
