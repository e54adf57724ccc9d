"""The vocabulary of a core: effects, decisions and transition tables. Pure."""
