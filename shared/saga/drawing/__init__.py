"""Graphs of workflows and agent classes as drawings: laid out, written as SVG. For `saga graph` and the console."""
