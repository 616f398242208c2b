"""Where records lie: which files a path, a folder or a glob names, datasets saved to disk, and the hub."""

from __future__ import annotations

import dataclasses
import glob
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dudi.data.files import DATA_SUFFIXES, JSON_LINES, Located, read_records, table_records
from dudi.errors import ConfigError, DataError, EnvironmentFault, did_you_mean, first_of

FOLDER_SUFFIXES = (*JSON_LINES, ".parquet")
"""What is read from a folder. A `.json` file there is as likely a card or a config."""
_TABLES = (".json", ".csv", ".tsv", ".txt", ".arrow")
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz")
LIKELY_SUFFIXES = (*FOLDER_SUFFIXES, *_TABLES, *_PACKED)
"""What may hold rows: a person is told of the files of a folder that have one of these and are not read."""
_CARDS = (".card.json", "data_card.json")
SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "devel", "development"),
    "test": ("test", "testing", "tst", "devtest"),
    "eval": ("eval", "evaluation", "heldout", "holdout"),
}
"""The splits that names tell, each with its words."""

_HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+?)(:(?P<config>[\w.\- ]+))?")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_GROUPS = {word: group for group, words in SPLITS.items() for word in words}
_SPLIT_WORD = re.compile(rf"({'|'.join(_GROUPS)})(s|set|split|data)?")
_BATCH = 1_000


def records_of(source: str, split: str, *, streaming: bool = False) -> Iterator[Located]:
    """The records of a source that is no built-in one; arguments as of `dudi.data.sources.load_rows`.

    Args:
        source: As there, without `cldr`.
        split: As there.
        streaming: Of a dataset on the hub fetch no more than is read of it; files are read so anyhow.

    Raises:
        ConfigError: the source does not exist or is of no known kind.
        DataError: a file as a whole cannot be read.
        EnvironmentFault: the hub cannot be reached.
    """
    if not source.strip():
        raise ConfigError("the data source is empty: name a file, a folder, `cldr` or a dataset on the hub")
    path = Path(os.path.expanduser(source))
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _saved_dataset(path, split)
    if not path.exists() and (hub := _hub_name(source)):
        return _hub_dataset(*hub, split, streaming)
    return itertools.chain.from_iterable(read_records(file, shown) for file, shown in find_files(source, split).files)


def note_of(source: str, split: str) -> str:
    """Which files of a folder or a glob `records_of` leaves out; empty where it reads all, and for other sources."""
    path = Path(source).expanduser()
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return ""
    note = find_files(source, split).note if path.is_dir() or glob.has_magic(source) else ""
    return f"{source}: {note}" if note else ""


@dataclasses.dataclass(frozen=True, slots=True)
class FoundFiles:
    """The files of a source.

    Attributes:
        files: Those of the split, sorted, each with the name it is shown by.
        others: Those of other splits, each with its split.
        unread: Those of a folder that may hold rows, in a form that is not read from folders.
    """

    files: list[tuple[Path, str]]
    others: dict[Path, str]
    unread: list[Path] = dataclasses.field(default_factory=list)

    @property
    def note(self) -> str:
        """What a person should know of the files that are left out; empty where there are none."""
        counts = Counter(self.others.values())
        reasons: list[str] = []
        if self.others:
            parts = ", ".join(f"{count} of '{split}'" for split, count in counts.items())
            shown = first_of([path.name for path in self.others], 4)
            reasons.append(f"left out by their names are {parts} ({shown})")
        if self.unread:
            shown = first_of([path.name for path in self.unread], 4)
            reasons.append(
                f"not read from a folder are {len(self.unread)} of other kinds ({shown}; if they hold rows, write them "
                "as JSONL or Parquet)"
            )
        total = len(self.files) + len(self.others) + len(self.unread)
        return f"{len(self.files)} of {total} files are read: {'; '.join(reasons)}" if reasons else ""


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
        return FoundFiles([(path, str(path))], {})
    if path.is_dir():
        likely = [file for file in sorted(path.rglob("*")) if _holds_rows(file, path)]
        found = [file for file in likely if file.suffix.lower() in suffixes]
        if not found:
            raise ConfigError(f"{path}: no data files in it (looked for {', '.join(suffixes)})")
        chosen = _of_split(path, _splits_inside(path, found), split)
        return dataclasses.replace(chosen, unread=[file for file in likely if file.suffix.lower() not in suffixes])
    if glob.has_magic(source):
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        if not found:
            raise ConfigError(f"{source}: no file matches")
        fixed = len(list(itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)))
        splits = {file: _splits_of(Path(*file.parts[fixed:])) for file in found}
        one = len(set(splits.values())) == 1  # then the glob says which, and not the split
        return FoundFiles([(file, str(file)) for file in found], {}) if one else _of_split(path, splits, split)
    raise ConfigError(f"{source}: no such file or folder{_nearest_file(path)}")


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
        None where they name none. Without a split that of the folder's own name, or the only one that its files are of;
        `train` of all other sources.

    Raises:
        ConfigError: a folder holds several splits and none is named, or they are the rows that are trained on.
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
    saved = (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()
    if split is not None or saved or not path.is_dir():
        return source, split or "train"
    found = [file for file in path.rglob("*") if _holds_rows(file, path) and file.suffix.lower() in FOLDER_SUFFIXES]
    groups = sorted({group for _, group in _splits_inside(path, found).values()})
    if len(groups) > 1:
        raise ConfigError(f"data.eval: {source} holds the splits {', '.join(groups)}; name one with data.eval_split")
    return source, groups[0] if groups else "train"


def _splits_inside(folder: Path, files: list[Path]) -> dict[Path, tuple[str, str]]:
    """The split of each file of a folder by the names inside; where none of them tells one, by the folder's own."""
    own = own_split(str(folder))
    inside = {file: file.relative_to(folder) for file in files}
    if own is not None and not any(_split_words(path) for path in inside.values()):
        return dict.fromkeys(files, (own, _GROUPS[own]))
    return {file: _splits_of(path) for file, path in inside.items()}


def _holds_rows(file: Path, folder: Path) -> bool:
    """Whether something in a folder may be data: not hidden, no card, and not what `dudi` writes of rejected rows."""
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    rejected = file.name == "rejected.jsonl" or file.name.endswith(".rejected.jsonl")
    about = rejected or file.name.endswith(_CARDS)
    return file.suffix.lower() in LIKELY_SUFFIXES and not hidden and not about and file.is_file()


def _of_split(place: Path, splits: dict[Path, tuple[str, str]], split: str) -> FoundFiles:
    """The files whose names have the split's own word; without any, those with another word for it."""
    group = _GROUPS.get(split.lower(), split)
    files = [file for file, (word, _) in splits.items() if word == split.lower()]
    files = files if files and group != "train" else [file for file, (_, own) in splits.items() if own == group]
    if not files:
        there = ", ".join(dict.fromkeys(own for _, own in splits.values()))
        raise ConfigError(
            f"{place}: none of its {len(splits)} data files belongs to the split '{split}', by their names ({there})"
        )
    chosen = set(files)
    others = {file: own for file, (_, own) in splits.items() if file not in chosen}
    return FoundFiles([(file, str(file)) for file in files], others)


def _splits_of(path: Path) -> tuple[str, str]:
    """The word for a split in a file's name, else in that of the nearest folder, and the split it stands for.

    `th.test-00000.parquet`, `Test.jsonl`, `devSet.jsonl` and `val/a.jsonl` tell one. Of a name with words for several
    that of held-out rows counts, so that nobody trains on them. No word at all means `train`.
    """
    words = _split_words(path)
    word = next((word for word in words if _GROUPS[word] != "train"), words[0] if words else "train")
    return word, _GROUPS[word]


def _split_words(path: Path) -> list[str]:
    """The words for splits in a file's name, else in that of the nearest folder that has some."""
    for part in reversed(path.parts):
        words = [found[1] for word in _WORD.findall(part) if (found := _SPLIT_WORD.fullmatch(word.lower()))]
        if words:
            return words
    return []


def _nearest_file(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"; the folder {folder} does not exist"
    names = [name.name for name in folder.iterdir() if name.is_dir() or name.suffix.lower() in DATA_SUFFIXES]
    return did_you_mean(path.name, names)


def _hub_name(source: str) -> tuple[str, str | None] | None:
    """(name, config) of a source that reads as a hub dataset and not as a path."""
    found = _HUB_NAME.fullmatch(source)
    if not found or Path(source).suffix.lower() in DATA_SUFFIXES or Path(source).parent.is_dir():
        return None
    return found["name"], found["config"]


def _saved_dataset(path: Path, split: str) -> Iterator[Located]:
    import pyarrow as pa
    from datasets import Dataset

    try:
        folder = _split_folder(path, split)
        _check_files(folder)
        saved = Dataset.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as a saved dataset: {_first_line(error)}") from error
    return dataset_records(saved, str(path))


def _split_folder(path: Path, split: str) -> Path:
    """The folder of a split of a saved `DatasetDict`; the folder itself where one dataset was saved."""
    listed = path / "dataset_dict.json"
    if not listed.is_file():
        return path
    splits = [str(name) for name in json.loads(listed.read_text(encoding="utf-8"))["splits"]]
    if split not in splits:
        raise ConfigError(f"{path}: no split '{split}'{did_you_mean(split, splits)}; it has {', '.join(splits)}")
    return path / _inside(split)


def _check_files(folder: Path) -> None:
    """Refuse a saved dataset whose list of files is empty, or leads out of its folder."""
    files = json.loads((folder / "state.json").read_text(encoding="utf-8"))["_data_files"]
    for name in [_inside(file["filename"]) for file in files] or ["(no file is listed)"]:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{name} is missing")


def _inside(name: str) -> str:
    """The name of a file or folder that lies directly in another; anything else would read what it should not."""
    if Path(name).name != name:
        raise ValueError(f"it names {name!r}, which is outside of its folder")
    return name


def _hub_dataset(name: str, config: str | None, split: str, streaming: bool) -> Iterator[Located]:
    if not streaming:
        return dataset_records(open_dataset(name, config, split), name)
    try:
        return _streamed(open_dataset(name, config, split, streaming=True), name)
    except (ConfigError, EnvironmentFault):
        # Without a network there may be a copy from before; if there is none, this says what is wrong.
        return dataset_records(open_dataset(name, config, split), name)


def _streamed(dataset: Any, name: str) -> Iterator[Located]:
    try:
        yield from dataset_records(dataset, name)
    except OSError as error:
        raise EnvironmentFault(f"{name}: the hub gave no more ({_first_line(error)}); check the network") from error


def open_dataset(name: str, config: str | None, split: str, **options: Any) -> Any:
    """A split of a dataset on the hub, as `datasets.load_dataset` opens it.

    Args:
        name: On the hub.
        config: Its part; None where it has one alone.
        split: Which split.
        options: More words of `load_dataset`: `revision`, `data_dir`, `streaming`.

    Raises:
        ConfigError: no such dataset, config or split.
        EnvironmentFault: the hub cannot be reached.
    """
    import datasets

    try:
        return datasets.load_dataset(name, config, split=split, **options)
    except (OSError, datasets.exceptions.DatasetsError) as error:
        from dudi.models.hub_errors import explain_hub_error

        if (found := explain_hub_error(name, "dataset", error)) is not None:
            raise found from error
        if isinstance(error, datasets.exceptions.FileNotFoundDatasetsError):
            raise ConfigError(
                f"{name}: no such file or folder here, and no data on the hub that is open to you "
                f"({_first_line(error)}); check the spelling, or run `hf auth login` if it is private"
            ) from error
        raise EnvironmentFault(
            f"{name}: no such file or folder here, and the hub cannot give it ({_first_line(error)}); check the network"
        ) from error
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{name}: cannot be loaded with config {config!r} and split '{split}': {_first_line(error)}"
        ) from error


def dataset_records(dataset: Any, name: str) -> Iterator[Located]:
    """The rows of a `datasets.Dataset`, or of one that streams, one after the other."""
    # As Arrow tables: images and audio stay undecoded, and text that is not UTF-8 costs one row and not the run.
    return table_records(dataset.with_format("arrow").iter(batch_size=_BATCH), name)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
