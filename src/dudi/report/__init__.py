"""What a run leaves for people: `report.html` and the model card."""

from dudi.report.card import write_model_card
from dudi.report.page import write_report

__all__ = ["write_model_card", "write_report"]
