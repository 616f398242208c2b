"""The Parquet files of SEA-Instruct-2602: on this disk or from the hub, each with the language its folder names."""

from __future__ import annotations

import bisect
import dataclasses
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from dudi.data.locate import find_files
from dudi.data.records import BATCH_ROWS, Located, damaged, first_line, open_parquet, table_records
from dudi.data.sea.filter import CONVERSATIONS, LANGUAGE_NAMES, METADATA
from dudi.errors import ConfigError, DataError, EnvironmentFault, did_you_mean

HUB_NAME = "aisingapore/SEA-Instruct-2602"

_REVISION = re.compile(r"/snapshots/([0-9a-f]{40})/")
_PARQUET = (".parquet",)


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class SeaFile:
    """One file of the dataset.

    Attributes:
        label: Its name as cards and rejections show it: the folder of its language and its own name.
        language: The code that its folder or its name tells, or None.
        revision: The dataset's commit, where the hub's cache tells it.
    """

    label: str
    path: Path
    language: str | None
    revision: str | None


def find_sea_files(sources: Sequence[str], languages: Collection[str]) -> list[SeaFile]:
    """The Parquet files of all sources that may hold rows of the wanted languages, in the order of their labels.

    No source means the dataset on the hub; files of another language are left alone.

    Raises:
        ConfigError: a source does not exist, or nothing in it is of a wanted language.
        EnvironmentFault: the hub cannot be reached.
    """
    found: dict[Path, SeaFile] = {}
    for source in sources or [HUB_NAME]:
        here = str(_download(languages)) if source == HUB_NAME and not Path(source).exists() else source
        root = Path(here).expanduser()
        for path in find_files(here, suffixes=_PARQUET).files:
            if path.suffix.lower() not in _PARQUET:
                raise ConfigError(f"{path}: SEA-Instruct is read from Parquet files")
            label = path.relative_to(root) if root.is_dir() else Path(path.name)
            if path.parent.name.lower() in LANGUAGE_NAMES:
                label = Path(path.parent.name, path.name)
            language, revision = _language_of(label), _REVISION.search(path.absolute().as_posix())
            if language is None or language in languages:
                found[path.resolve()] = SeaFile(label.as_posix(), path, language, revision[1] if revision else None)
    if not found:
        raise ConfigError(f"{', '.join(sources)}: no Parquet file of {', '.join(languages)} in it")
    return sorted(found.values())


def _language_of(label: Path) -> str | None:
    """The language that a label's folders, or its file's name, tell: `Thai/...`, `th/...`, `Thai-train.parquet`."""
    codes = set(LANGUAGE_NAMES.values())
    for part in (label.stem, *reversed(label.parts[:-1])):
        if part in codes:
            return part
        for word in re.split(r"[-_. ]", part.lower()):
            if word in LANGUAGE_NAMES:
                return LANGUAGE_NAMES[word]
    return None


def _download(languages: Collection[str]) -> Path:
    """The hub's snapshot, with the folders of the wanted languages."""
    from huggingface_hub import snapshot_download

    from dudi.models.hub_errors import explain_hub_error

    names = [name.capitalize() for name, code in LANGUAGE_NAMES.items() if code in languages]
    try:
        return Path(snapshot_download(HUB_NAME, repo_type="dataset", allow_patterns=[f"{name}/*" for name in names]))
    except OSError as error:
        why = f"the hub cannot give it ({first_line(error)}); check the network, or name local Parquet files"
        raise explain_hub_error(HUB_NAME, "dataset", error) or EnvironmentFault(f"{HUB_NAME}: {why}") from error


def columns_of(file: SeaFile) -> list[str]:
    """The columns that are read of a file: the conversations, and what metadata it has.

    Raises:
        DataError: the file is no readable Parquet, or has no column of conversations.
    """
    with open_parquet(file.path) as handle:
        present = handle.schema_arrow.names
    if CONVERSATIONS not in present:
        hint = did_you_mean(CONVERSATIONS, present)
        raise DataError(f"{file.path}: no column `{CONVERSATIONS}`{hint}; it has {', '.join(present)[:200]}")
    return [CONVERSATIONS, *(name for name in METADATA if name in present)]


def read_file(file: SeaFile, columns: Sequence[str], lines: Sequence[int] | None = None) -> Iterator[Located]:
    """The records of a file, streamed.

    Where `lines` are given, counted from 1 and ascending, only these rows; row groups without one are skipped.

    Raises:
        DataError: the file is damaged.
    """
    import pyarrow as pa

    wanted = None if lines is None else set(lines)
    with open_parquet(file.path) as handle:
        try:
            start = 0
            for group in range(handle.num_row_groups):
                end = start + handle.metadata.row_group(group).num_rows
                if lines is None or bisect.bisect_right(lines, start) < bisect.bisect_right(lines, end):
                    batches = handle.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(columns))
                    for located in table_records(batches, file.label):
                        placed = dataclasses.replace(located, line=start + located.line)
                        if wanted is None or placed.line in wanted:
                            yield placed
                start = end
        except (pa.ArrowException, OSError) as error:
            raise damaged(file.path, error) from error
