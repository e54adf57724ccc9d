"""Which step starts where: residency, slots, leases. One leader per cell, warm standbys."""
