"""The APIs that clients speak, one file each: what is read of a request, of an answer, and how errors look there."""
