"""The real SEA-HELM, driven as a subprocess: a server for the checkpoint, runs over seeds, totals recomputed."""
