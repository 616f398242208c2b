"""Sources of training rows that come with the package, by the name that a recipe says."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence

from dudi.data.rows import Row


@dataclasses.dataclass(frozen=True, slots=True)
class BuiltIn:
    """One of them.

    Attributes:
        make: `module:function` that makes its rows, imported when they are asked for.
        licence: Of what the rows are made from.
        reads: Keys of a recipe's `data` that it alone reads.
    """

    make: str
    licence: str
    reads: tuple[str, ...] = ("rows_per_language",)

    def rows(
        self, languages: Sequence[str], tasks: Sequence[str] | None, rows_per_language: int | None, seed: int
    ) -> list[Row]:
        """The rows; arguments as of `dudi.data.sources.load_rows`.

        Raises:
            ConfigError: an unknown language or task.
            DataError: more rows than there are.
        """
        module, _, function = self.make.partition(":")
        made: list[Row] = getattr(importlib.import_module(module), function)(languages, tasks, rows_per_language, seed)
        return made


_CLDR = "Unicode-3.0 (names and formats of Unicode CLDR)"
SOURCES = {
    "cldr": BuiltIn("dudi.data.cldr.items:source", _CLDR),
    "cldr-qa-1": BuiltIn("dudi.data.cldr.benchmark:source", _CLDR, ("rows_per_language", "tasks")),
}
