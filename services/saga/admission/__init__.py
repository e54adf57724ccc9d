"""Who may run, and in what order: the active set, fair tags, bounded waiting. One leader per cell, warm standbys."""
