"""Speed and memory of `dudi` beside TRL on the same work: `python -m benchmarks.aims` (`make bench`)."""
