"""The cross-lingual verbalizer: one template file per language, the choice of the target, the two prompts."""

from dudi.verbalizer.verbalizer import MODES, Verbalized, Verbalizer

__all__ = ["MODES", "Verbalized", "Verbalizer"]
