"""The real SEA-HELM, driven as a subprocess against a model's server; its totals recomputed."""

NAME = "seahelm"
"""As a benchmark, and of the folder beside its results."""
COMPETENCIES = {
    "nlu": "NLU",
    "nlg": "NLG",
    "nlr": "NLR",
    "safety": "Safety",
    "linguistic-diagnostics": "LD",
    "instruction-following": "IF",
    "knowledge": "Knowledge",
}
"""The seven of the paper's Table 8: SEA-HELM's name and the paper's."""
