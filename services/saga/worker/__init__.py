"""One agent per engine rank: residency, load, retention and supervision of an SGLang server, real or simulated."""
