"""Which keys a recipe may have: those of `dudi train`, or those of `dudi stack`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from dudi.config.sections import SECTIONS, SHORTHAND, Section
from dudi.config.stack_sections import STACK_SECTIONS, STACK_SHORTHAND
from dudi.config.training_keys import TrainingKey, stack_keys, training_keys


@dataclasses.dataclass(frozen=True, slots=True)
class Schema:
    """The keys of one kind of recipe.

    Attributes:
        sections: Its sections, in the order in which they are written.
        shorthand: The key that a section's text stands for.
        training: Its keys at the top level, beside `dtype`; asking for them imports torch.
    """

    sections: Mapping[str, type[Section]]
    shorthand: Mapping[str, str]
    training: Callable[[], Mapping[str, TrainingKey]]

    def top_level_keys(self) -> list[str]:
        """Every key that a recipe may have outside its sections."""
        return ["dtype", *self.training()]

    def known_keys(self) -> list[str]:
        """Every key that a recipe may set, sections' keys with a dot."""
        dotted = [f"{name}.{key}" for name, section in self.sections.items() for key in section.model_fields]
        return [*dotted, *self.top_level_keys()]


DUDI = Schema(SECTIONS, SHORTHAND, training_keys)
STACK = Schema(STACK_SECTIONS, STACK_SHORTHAND, stack_keys)
