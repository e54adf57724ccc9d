"""The impure half that services share: life cycle, bus, leadership, configuration, logs, metrics."""
