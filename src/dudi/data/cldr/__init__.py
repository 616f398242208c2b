"""Real multilingual instruction rows made from CLDR: the facts are CLDR's, the wording is ours."""

from dudi.data.cldr.items import cldr_items, cldr_rows, fact_of, row_of, word
from dudi.data.cldr.prepare import prepare_cldr
from dudi.data.cldr.speaker import LANGUAGES
from dudi.data.cldr.tasks import KINDS, Fact, facts

__all__ = [
    "KINDS",
    "LANGUAGES",
    "Fact",
    "cldr_items",
    "cldr_rows",
    "fact_of",
    "facts",
    "prepare_cldr",
    "row_of",
    "word",
]
