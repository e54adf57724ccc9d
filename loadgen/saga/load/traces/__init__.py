"""Traces of agent sessions: one form in memory, readers and writers of the file formats, and what a trace is like."""
