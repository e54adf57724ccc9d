"""The `saga` command: start a mesh, attach a worker, run a benchmark."""
