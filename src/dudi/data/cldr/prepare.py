"""CLDR rows as a file: JSONL, and a card that says what it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import babel
from babel.core import get_cldr_version

from dudi.data.cldr.items import cldr_items
from dudi.data.cldr.locales import AS_OF
from dudi.data.writers import card_beside
from dudi.files import sha256_of, write_json, write_json_lines


def prepare_cldr(output: Path, languages: Sequence[str], rows_per_language: int, seed: int = 0) -> dict[str, Any]:
    """Write CLDR rows as JSONL, and `NAME.card.json` beside them; arguments as of `cldr_rows`.

    A row is `id`, `language`, `prompt` and `completion`, the last two as lists of messages, as TRL reads them. Each
    file appears whole or not at all.

    Returns:
        The card: source and versions, what was asked for, counts by language and kind, SHA-256 of the file.

    Raises:
        ConfigError: an unknown language, or a number below 1.
        DataError: more rows than can be made.
        EnvironmentFault: the disk refuses.
    """
    rows = []
    by_language: dict[str, Counter[str]] = {}
    for fact, row in cldr_items(languages, rows_per_language, seed):
        answer = {"role": "assistant", "content": row.completion}
        rows.append({"id": row.id, "language": row.language, "prompt": row.prompt, "completion": [answer]})
        by_language.setdefault(row.language, Counter())[fact.kind] += 1
    write_json_lines(output, rows)
    kinds = sum(by_language.values(), Counter[str]())
    counts = {language: own.total() for language, own in by_language.items()}
    card = {
        "file": output.name,
        "source": f"Unicode CLDR {get_cldr_version()}, read through babel {babel.__version__}",
        "license": "Unicode-3.0 (names and formats)",
        "cldr_version": get_cldr_version(),
        "babel_version": babel.__version__,
        "as_of": AS_OF.isoformat(),
        "sha256": sha256_of(output),
        "rows": len(rows),
        "languages": counts,
        "kinds": dict(sorted(kinds.items())),
        "kinds_by_language": {language: dict(sorted(own.items())) for language, own in by_language.items()},
        "rows_per_language": rows_per_language,
        "seed": seed,
    }
    write_json(card_beside(output), card)
    return card
