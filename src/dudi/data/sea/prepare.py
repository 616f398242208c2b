"""`dudi prepare sea-instruct`: a sample of SEA-Instruct-2602 that keeps its mix of domain, task and complexity.

Two passes over the Parquet files. The pass that counts judges every row and notes where the good ones lie, 24 bytes for
each; the pass that writes reads the chosen rows again.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from dudi.data.rows import Row, RowError
from dudi.data.sea.card import Tally, card_of_sample, mix_text
from dudi.data.sea.filter import DEFAULT_EXCLUDED_SOURCES, METADATA, MIX_COLUMNS, Candidate, LeftOut, SeaFilter
from dudi.data.sea.inputs import HUB_NAME, SeaFile, columns_of, find_sea_files, read_file
from dudi.data.sea.sampling import Candidates, Cell, LanguageSample, hash_rank
from dudi.data.sources import RowIds, content_digest, reject
from dudi.data.writers import card_beside, row_writer
from dudi.errors import ConfigError, DataError
from dudi.files import write_json
from dudi.languages.registry import check_codes, load_languages

SEA_LANGUAGES = ("id", "vi", "th", "ta", "tl", "ms", "my")
EXTRA_COLUMNS = (*MIX_COLUMNS, "source")
LICENCE = (
    "ODC-By 1.0 (aisingapore/SEA-Instruct-2602): name the source where you share the sample or work made from it. "
    "The contents carry the rights of their own sources, named row by row in the column `source`."
)


def prepare_sea_instruct(
    sources: Sequence[str] | str,
    output: Path,
    *,
    per_language: int = 4000,
    seed: int = 0,
    languages: Sequence[str] | None = None,
    exclude_sources: Collection[str] | None = None,
    revision: str | None = None,
    max_rejected_share: float = 0.05,
) -> dict[str, Any]:
    """Draw a sample per language that keeps the joint mix of domain, task and complexity.

    Which rows are chosen depends on their ids, their content and the seed; not on the order or the number of files.

    Args:
        sources: Parquet files, folders or globs, or the dataset's name on the hub; empty means the hub.
        output: The `.parquet` file to write, or a folder for `train.parquet`. `NAME.card.json`, and
            `NAME.rejected.jsonl` where rows were bad, go beside it.
        per_language: Rows of each language; where there are fewer good ones, all are taken and the card says so.
        seed: Another seed draws another sample.
        languages: The codes wanted; None means the dataset's seven.
        exclude_sources: Rows whose `source` holds one of these names are left out; None means the sources near the
            benchmarks, `DEFAULT_EXCLUDED_SOURCES`.
        revision: The dataset's commit, for the card; read from the hub's cache where it tells.
        max_rejected_share: Nothing is written over `output` when more rows than this share are bad.

    Returns:
        The data card, and under `text` the mix before and after as lines for people.

    Raises:
        ConfigError: a source or a language does not exist, or `per_language` is below 1.
        DataError: a file is damaged, too many rows are bad, or no good row is left.
        EnvironmentFault: the output cannot be written, or the hub cannot be reached.
    """
    if per_language < 1:
        raise ConfigError(f"per_language: must be at least 1, got {per_language}")
    wanted = list(dict.fromkeys(SEA_LANGUAGES if languages is None else languages))
    if not wanted:
        raise ConfigError("languages: name at least one")
    check_codes(wanted, load_languages(), "languages")
    excluded = tuple(DEFAULT_EXCLUDED_SOURCES if exclude_sources is None else exclude_sources)
    target = output if output.suffix else output / "train.parquet"
    named = [sources] if isinstance(sources, str) else list(sources)
    files = [file for file in find_sea_files(named, wanted) if file.path.resolve() != target.resolve()]
    judge, tally, candidates = SeaFilter(wanted, excluded), Tally(), Candidates()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # literal_eval warns of "\d" in a row's text
        for index, file in enumerate(files):
            for row, cell, line in _good_rows(file, judge, tally):
                rank = hash_rank(seed, row.id, content_digest(row))
                candidates.add(row.language, rank, cell, index, line)
        tally.rejections.settle(target.with_suffix(".rejected.jsonl"))
        tally.rejections.check_share(tally.per_file.total(), max_rejected_share)
        samples = {code: candidates.choose(code, per_language) for code in wanted}
        for index in (index for sample in samples.values() for index in sample.duplicates.elements()):
            tally.leave_out(files[index].language, "duplicate")
        if not any(sample.places for sample in samples.values()):
            reasons = sum(tally.left_out.values(), Counter[str]()).most_common()
            why = ", ".join(f"{reason} {count:,}" for reason, count in reasons) or "nothing"
            raise DataError(f"no good row of {', '.join(wanted)} in {len(files)} files; left out: {why}")
        _write(target, files, judge, samples)
    card = {
        "dataset": HUB_NAME,
        "licence": LICENCE,
        "revision": revision or next((file.revision for file in files if file.revision), None),
        "seed": seed,
        "per_language": per_language,
        "filters": {
            "quality": "Excellent, coherent and natural, by the columns that are there",
            "language": "the text is in its folder's language (Indonesian and Malay are not told apart here)",
            "excluded_sources": list(excluded),
        },
        **card_of_sample(target, files, tally, samples, per_language),
    }
    write_json(card_beside(target), card)
    return card | {"text": mix_text(card, tally.rejections)}


def _good_rows(file: SeaFile, judge: SeaFilter, tally: Tally) -> Iterator[tuple[Row, Cell, int]]:
    """The good rows of a file, each with its cell and its line; the others are counted."""
    columns = columns_of(file)
    tally.missing_columns.update(name for name in METADATA if name not in columns)
    for located in read_file(file, columns):
        tally.per_file[file.label] += 1
        try:
            candidate = judge(located, file.language)
        except LeftOut as verdict:
            tally.leave_out(file.language, str(verdict))
        except RowError as error:
            reject(tally.rejections, located, error)
        else:
            yield candidate.row, candidate.cell, located.line


def _write(target: Path, files: Sequence[SeaFile], judge: SeaFilter, samples: dict[str, LanguageSample]) -> None:
    """Write the chosen rows, language after language, in the random order."""
    ids = RowIds()
    with row_writer(target, EXTRA_COLUMNS) as write:
        for sample in samples.values():
            found = _read_again(files, judge, sample.places)
            for place in sample.places:
                candidate, fallback = found[place], f"{files[place[0]].label}:{place[1]}"
                row = ids.unique(dataclasses.replace(candidate.row, id=candidate.row.id or fallback))
                tags = dict(zip(MIX_COLUMNS, candidate.cell, strict=True))
                written = {"id": row.id, "language": row.language, "messages": row.messages}
                write(written | tags | {"source": candidate.source})


def _read_again(
    files: Sequence[SeaFile], judge: SeaFilter, places: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], Candidate]:
    lines: dict[int, list[int]] = {}
    for index, line in sorted(places):
        lines.setdefault(index, []).append(line)
    return {
        (index, located.line): judge(located, files[index].language)
        for index, wanted in lines.items()
        for located in read_file(files[index], columns_of(files[index]), wanted)
    }
