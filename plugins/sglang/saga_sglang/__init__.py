"""SAGA's eviction order inside SGLang. Standard library only; SGLang itself is imported when the plugin registers."""
