"""The verbs: every word of the command line, and nothing else."""
