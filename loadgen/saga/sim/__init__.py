"""The laboratory: the cores of the live services in virtual time, with models of network, tools and clients."""
