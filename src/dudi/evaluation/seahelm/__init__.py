"""The real SEA-HELM, driven as a subprocess against a model's server; its totals recomputed."""
