"""Speed and memory of `dudi` beside TRL on the same work: `python -m benchmarks --size cpu-small` (`make bench`)."""
