"""Where rows lie: which files a path, a folder or a glob names and of which split they are, and names on the hub."""

from __future__ import annotations

import dataclasses
import glob
import itertools
import json
import os
import re
from collections import Counter
from pathlib import Path

from dudi.errors import ConfigError, DataError, did_you_mean, first_of

JSON_LINES = (".jsonl", ".ndjson")
DATA_SUFFIXES = (*JSON_LINES, ".json", ".parquet")
FOLDER_SUFFIXES = (*JSON_LINES, ".parquet")
"""What is read from a folder. A `.json` file there is as likely a card or a config."""
_TABLES = (".json", ".csv", ".tsv", ".txt", ".arrow")
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz")
LIKELY_SUFFIXES = (*FOLDER_SUFFIXES, *_TABLES, *_PACKED)
"""What may hold rows: a person is told of the files of a folder that have one of these and are not read."""
# Beside data, and none: cards, and what `dudi` writes of rejected rows.
_ABOUT_DATA = (".card.json", "data_card.json", ".rejected.jsonl")
SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "devel", "development"),
    "test": ("test", "testing", "tst", "devtest"),
    "eval": ("eval", "evaluation", "heldout", "holdout"),
}
"""The splits that names tell, each with its words."""

_HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+?)(:(?P<config>[\w.\- ]+))?")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SPLIT_OF = {word: split for split, words in SPLITS.items() for word in words}
_SPLIT_WORD = re.compile(rf"({'|'.join(_SPLIT_OF)})(s|set|split|data)?")


@dataclasses.dataclass(frozen=True, slots=True)
class FoundFiles:
    """The files of a source.

    Attributes:
        files: Those of the split, sorted.
        others: Those of other splits, each with its split.
        unread: Those of a folder that may hold rows, in a form that is not read from folders.
    """

    files: list[Path]
    others: dict[Path, str] = dataclasses.field(default_factory=dict)
    unread: list[Path] = dataclasses.field(default_factory=list)


def find_files(source: str, split: str = "train", suffixes: tuple[str, ...] = FOLDER_SUFFIXES) -> FoundFiles:
    """The files that a path, a folder or a glob names.

    A folder is searched to its bottom; rejected rows, hidden files and the files of other splits are left out. So are
    the files of other splits that a glob matches together with some of `split`. Where no name inside of a folder tells
    a split, its own does: `data/test` holds no rows to train on.

    Args:
        source: A file, a folder or a glob.
        split: The split to take where files or folders are named by split (`th.test.jsonl`, `Dev/a.parquet`).
        suffixes: What counts as a data file in a folder.

    Raises:
        ConfigError: nothing is there, or nothing of this split.
    """
    path = Path(os.path.expanduser(source))
    if path.is_file():
        return FoundFiles([path])
    if path.is_dir():
        likely = _likely_files(path)
        found = [file for file in likely if file.suffix.lower() in suffixes]
        if not found:
            raise ConfigError(f"{path}: no data files in it (looked for {', '.join(suffixes)})")
        chosen = _of_split(path, _words_inside(path, found), split)
        return dataclasses.replace(chosen, unread=[file for file in likely if file.suffix.lower() not in suffixes])
    if glob.has_magic(source):
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        if not found:
            raise ConfigError(f"{source}: no file matches")
        fixed = len(list(itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)))
        words = {file: _split_word(Path(*file.parts[fixed:])) or "train" for file in found}
        one = len(set(words.values())) == 1  # then the glob says which, and not the split
        return FoundFiles(found) if one else _of_split(path, words, split)
    raise ConfigError(f"{source}: no such file or folder{_nearest_file(path)}")


def note_of(source: str, split: str) -> str:
    """Which files of a folder or a glob are not read; empty where all are, and for other sources."""
    path = Path(source).expanduser()
    if is_saved_dataset(path) or not (path.is_dir() or glob.has_magic(source)):
        return ""
    found = find_files(source, split)
    reasons: list[str] = []
    if found.others:
        parts = ", ".join(f"{count} of '{other}'" for other, count in Counter(found.others.values()).items())
        reasons.append(f"left out by their names are {parts} ({first_of([path.name for path in found.others], 4)})")
    if found.unread:
        shown = first_of([path.name for path in found.unread], 4)
        reasons.append(
            f"not read from a folder are {len(found.unread)} of other kinds ({shown}; if they hold rows, write them "
            "as JSONL or Parquet)"
        )
    total = len(found.files) + len(found.others) + len(found.unread)
    return f"{source}: {len(found.files)} of {total} files are read: {'; '.join(reasons)}" if reasons else ""


def own_split(source: str) -> str | None:
    """The split that a folder is of by its own name (`data/test`); None where it tells none, and of other sources."""
    path = Path(source).expanduser()
    told = _SPLIT_WORD.fullmatch(path.name.lower())
    return told[1] if told and path.is_dir() else None


def asked_split(rows: str, named: str | None) -> str:
    """The split of the rows that are asked: the one that is named, else that of the folder's own name, else `test`.

    Raises:
        ConfigError: one is named, and the rows are one file.
    """
    if named is not None and Path(rows).expanduser().is_file():
        raise ConfigError(f"split {named}: {rows} is one file, and is read whole; leave it out")
    return named or own_split(rows) or "test"


def held_out(train: str, rows: str | None, split: str | None) -> tuple[str, str] | None:
    """Source and split of the rows for evaluation, as `data.train`, `data.eval` and `data.eval_split` name them.

    Returns:
        None where they name none. Without a split that of the folder's own name, or the only one that it holds; `train`
        of all other sources.

    Raises:
        ConfigError: a folder holds several splits and none is named, or they are the rows that are trained on.
        DataError: a saved dataset is damaged.
    """
    if rows is None and split is None:
        return None
    source = rows or train
    path = Path(source).expanduser()
    if rows is None and path.is_file():
        raise ConfigError(
            f"data.eval_split: {train} is one file, and has no split '{split}' beside those rows that are trained on; "
            "name a file with data.eval, or take it out with data.eval_split=null"
        )
    if split is not None:
        return source, split
    if is_saved_dataset(path):
        splits = saved_splits(path)
    elif path.is_dir():
        found = [file for file in _likely_files(path) if file.suffix.lower() in FOLDER_SUFFIXES]
        splits = sorted({_SPLIT_OF[word] for word in _words_inside(path, found).values()})
    elif source == train and not path.exists() and hub_name(source):
        raise ConfigError(f"data.eval: {source} is what is trained on; name another split of it with data.eval_split")
    else:
        splits = []
    if len(splits) > 1:
        raise ConfigError(f"data.eval: {source} holds the splits {', '.join(splits)}; name one with data.eval_split")
    return source, splits[0] if splits else "train"


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder was made by `save_to_disk` of `datasets`."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def saved_splits(folder: Path) -> list[str]:
    """The splits of a saved `DatasetDict`; none where one dataset was saved.

    Raises:
        DataError: its list of them cannot be read.
    """
    listed = folder / "dataset_dict.json"
    if not listed.is_file():
        return []
    try:
        return [str(name) for name in json.loads(listed.read_text(encoding="utf-8"))["splits"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: cannot be read as a saved dataset: dataset_dict.json: {error}") from error


def hub_name(source: str) -> tuple[str, str | None] | None:
    """(name, config) of a source that reads as a hub dataset and not as a path."""
    found = _HUB_NAME.fullmatch(source)
    if not found or Path(source).suffix.lower() in DATA_SUFFIXES or Path(source).parent.is_dir():
        return None
    return found["name"], found["config"]


def _likely_files(folder: Path) -> list[Path]:
    """What may hold rows in a folder: nothing hidden, no card, no rejected rows."""
    likely = []
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        about = file.name == "rejected.jsonl" or file.name.endswith(_ABOUT_DATA)
        if file.suffix.lower() in LIKELY_SUFFIXES and not hidden and not about and file.is_file():
            likely.append(file)
    return likely


def _words_inside(folder: Path, files: list[Path]) -> dict[Path, str]:
    """Each file of a folder with its word for a split: by the names inside, and where these tell none by its own."""
    told = {file: _split_word(file.relative_to(folder)) for file in files}
    untold = "train" if any(told.values()) else own_split(str(folder)) or "train"
    return {file: word or untold for file, word in told.items()}


def _of_split(place: Path, words: dict[Path, str], split: str) -> FoundFiles:
    """The files whose names have the split's own word; without any, those with another word for it."""
    wanted = _SPLIT_OF.get(split.lower(), split)
    files = [file for file, word in words.items() if word == split.lower()]
    if not files or wanted == "train":
        files = [file for file, word in words.items() if _SPLIT_OF[word] == wanted]
    if not files:
        there = ", ".join(dict.fromkeys(_SPLIT_OF[word] for word in words.values()))
        raise ConfigError(
            f"{place}: none of its {len(words)} data files belongs to the split '{split}', by their names ({there})"
        )
    chosen = set(files)
    return FoundFiles(files, {file: _SPLIT_OF[word] for file, word in words.items() if file not in chosen})


def _split_word(path: Path) -> str | None:
    """The word for a split in a file's name, else in that of the nearest folder that has one.

    `th.test-00000.parquet`, `Test.jsonl`, `devSet.jsonl` and `val/a.jsonl` tell one. Of a name with words for several
    that of held-out rows counts, so that nobody trains on them.
    """
    for part in reversed(path.parts):
        words = [found[1] for word in _WORD.findall(part) if (found := _SPLIT_WORD.fullmatch(word.lower()))]
        if words:
            return next((word for word in words if _SPLIT_OF[word] != "train"), words[0])
    return None


def _nearest_file(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"; the folder {folder} does not exist"
    names = [name.name for name in folder.iterdir() if name.is_dir() or name.suffix.lower() in DATA_SUFFIXES]
    return did_you_mean(path.name, names)
