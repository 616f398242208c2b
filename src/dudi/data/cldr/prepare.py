"""CLDR rows as a file: JSONL, and a card that says what it holds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import babel
from babel.core import get_cldr_version

from dudi.data.cldr.items import Item, cldr_items
from dudi.data.cldr.locales import AS_OF
from dudi.data.writers import card_beside
from dudi.files import sha256_of, write_json, write_text


def prepare_cldr(output: Path, languages: Sequence[str], rows_per_language: int, seed: int = 0) -> dict[str, Any]:
    """Write CLDR rows as JSONL, and `NAME.card.json` beside them.

    A row is `id`, `language`, `prompt` and `completion`, the last two as lists of messages, as TRL reads them. Each
    file appears whole or not at all.

    Args:
        output: The JSONL file; its folder is made when missing.
        languages: Codes of built-in languages, each once.
        rows_per_language: Rows of each language.
        seed: As in `cldr_rows`.

    Returns:
        The card: source and versions, what was asked for, counts by language and kind, SHA-256 of the file.

    Raises:
        ConfigError: an unknown language, or a number below 1.
        DataError: more rows than can be made.
        EnvironmentFault: the disk refuses.
    """
    items = cldr_items(languages, rows_per_language, seed)
    write_text(output, "".join(map(_line, items)))
    card = _card(items, sha256_of(output))
    card = {"file": output.name, **card, "rows_per_language": rows_per_language, "seed": seed}
    write_json(card_beside(output), card)
    return card


def _line(item: Item) -> str:
    _, row = item
    record = {
        "id": row.id,
        "language": row.language,
        "prompt": list(row.prompt),
        "completion": [{"role": "assistant", "content": row.completion}],
    }
    return json.dumps(record, ensure_ascii=False) + "\n"


def _card(items: list[Item], sha256: str) -> dict[str, Any]:
    by_language: dict[str, Counter[str]] = {}
    for fact, row in items:
        by_language.setdefault(row.language, Counter())[fact.kind] += 1
    of_all = sum(by_language.values(), Counter[str]())
    rows = {language: kinds.total() for language, kinds in by_language.items()}
    return {
        "source": f"Unicode CLDR {get_cldr_version()}, read through babel {babel.__version__}",
        "license": "Unicode-3.0 (names and formats)",
        "cldr_version": get_cldr_version(),
        "babel_version": babel.__version__,
        "as_of": AS_OF.isoformat(),
        "sha256": sha256,
        "rows": len(items),
        "languages": rows,
        "kinds": dict(sorted(of_all.items())),
        "kinds_by_language": {language: dict(sorted(kinds.items())) for language, kinds in by_language.items()},
    }
