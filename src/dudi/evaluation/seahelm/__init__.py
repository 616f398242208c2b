"""The real SEA-HELM, driven as a subprocess against a model's server; its totals recomputed."""

NAME = "seahelm"
"""As a benchmark, and of the folder beside its results."""
