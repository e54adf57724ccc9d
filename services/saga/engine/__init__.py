"""A simulated SGLang server for machines without a GPU: a pure EngineCore behind SGLang's HTTP and ZMQ interfaces."""
