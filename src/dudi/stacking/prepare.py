"""`dudi stack prepare`: a labelled data set as files of rows, one for each split and language, with a card."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from babel import Locale

from dudi.data.rows import RowError
from dudi.data.sources import reject
from dudi.errors import ConfigError, DataError, did_you_mean
from dudi.files import atomic_file, sha256_of, write_json, write_text
from dudi.stacking.codes import LanguageCodes, find_language, languages_of
from dudi.stacking.set_card import CARD, RECIPE, REJECTED, PreparedSet, card, readme, recipe_part
from dudi.stacking.set_rows import Found, file_rows, hub_rows, id_of, row_of
from dudi.stacking.task_sets import SOURCE_LANGUAGE, TaskSet, find_set

OURS = {CARD, RECIPE, REJECTED, "README.md", "train", "dev", "test"}
MAX_REJECTED = 0.02
"""Largest share of records that may give no row."""
_UNREAD = "{0}: NLLB cannot read it (--languages {0} takes it all the same)"


def prepare(
    name: str,
    output: Path,
    *,
    place: Path | None = None,
    train: str | None = None,
    languages: Sequence[str] = (),
    max_train: int | None = None,
    revision: str | None = None,
) -> PreparedSet:
    """Write `train/eng_Latn.jsonl`, `dev/LANGUAGE.jsonl`, `test/LANGUAGE.jsonl`, a recipe's part and a card.

    Args:
        name: One of `TASK_SETS`.
        output: The folder: a new one, or one that an earlier call has made.
        place: A file or folder that holds the set; None: the hub.
        train: A file or folder of English training rows where `place` has none, or `hub`; None: those of `place`.
        languages: Only these, in the set's codes or any other; empty: all that NLLB can read; `all`: all.
        max_train: At most so many training rows, the first ones.
        revision: Of the set on the hub.

    Raises:
        ConfigError: no such set, language, file or dataset, or the folder holds something else.
        DataError: more than 2 % of the records give no row, or no test row is there.
        EnvironmentFault: the hub cannot be reached, or the folder not written.
    """
    of = find_set(name)
    if output.exists() and {path.name for path in output.iterdir()} - OURS:
        raise ConfigError(f"{output}: holds other files; name a new folder")
    done = PreparedSet(of, output)
    wanted = _wanted(of, languages)
    if place is None:
        evaluation = _hub_evaluation(done, wanted, revision)
    else:
        # Of a set that has a test alone (Belebele), what says no split is of the test.
        alone = "test" if of.hub is not None and set(of.hub.splits) == {"test"} else None
        found = file_rows(of, place.expanduser())
        found = found if languages else _readable(done, found)
        evaluation = (dataclasses.replace(one, split=one.split or alone) for one in found)
    training: Iterator[Found] = iter(())
    origin: dict[str, str | None] = {
        "evaluation": str(place or (of.hub and of.hub.name)),
        "training": str(train or place),
        "revision": revision,
    }
    if train == "hub" or (place is None and train is None):
        training = _hub_training(of, revision)
        origin["training"] = str(of.train and of.train.name)
    elif train is not None:
        training = _english(done, file_rows(of, Path(train).expanduser()))
    any_language = place is not None and list(languages) in ([], ["all"])
    only = None if any_language else {language.code for language in wanted.values()}
    _write(done, itertools.chain(evaluation, training), only, max_train)
    if not done.trained:
        origin["training"] = None
    write_text(output / RECIPE, recipe_part(done))
    write_json(output / CARD, card(done, origin))
    write_text(output / "README.md", readme(done, origin))
    return done


def _wanted(of: TaskSet, languages: Sequence[str]) -> dict[str, LanguageCodes]:
    """The languages that are asked for, by the set's own codes; of all, those that NLLB can read."""
    known = languages_of(of.name)
    if not languages:
        return {code: language for code, language in known.items() if language.nllb is not None}
    if list(languages) == ["all"]:
        return known
    chosen: dict[str, LanguageCodes] = {}
    for word in languages:
        meant = known.get(word) or find_language(word)
        if meant is None:
            raise ConfigError(f"--languages: '{word}' is no language of {of.name}{_meant(of, word, known)}")
        chosen[next((code for code, language in known.items() if language == meant), word)] = meant
    return chosen


def _meant(of: TaskSet, word: str, known: Mapping[str, LanguageCodes]) -> str:
    """The set's code for what somebody called by its English name; else the nearest code."""
    names = {name.lower(): code for code, name in Locale("en").languages.items()} | dict(of.folders)
    named = names.get(word.lower(), "")
    language = known.get(named) or find_language(named)
    found = next((code for code, one in known.items() if language is not None and one == language), None)
    return did_you_mean(word, known) if found is None else f" (did you mean '{found}'?)"


def _hub_evaluation(done: PreparedSet, wanted: Mapping[str, LanguageCodes], revision: str | None) -> Iterator[Found]:
    of = done.of
    if of.hub is None:
        raise ConfigError(f"{of.name}: is not on the hub; clone github.com/{of.github} and name its folder with --from")
    for code, language in languages_of(of.name).items():
        if code not in wanted and language.nllb is None:
            done.left_out[_UNREAD.format(code)] = 0
    for code, language in wanted.items():
        for split in of.hub.splits:
            # English rows for validation come with those for training.
            if split == "test" or (split == "dev" and language.code != SOURCE_LANGUAGE):
                yield from hub_rows(of.hub, code, language, split, revision)


def _readable(done: PreparedSet, found: Iterator[Found]) -> Iterator[Found]:
    """Rows of files without those in languages that NLLB cannot read, which are counted."""
    for one in found:
        if one.language is not None and one.language.nllb is None:
            done.left_out[_UNREAD.format(one.language.code)] += 1
        else:
            yield one


def _hub_training(of: TaskSet, revision: str | None) -> Iterator[Found]:
    source = find_language(SOURCE_LANGUAGE)
    if of.train is None or source is None:
        raise ConfigError(f"{of.name}: no English training rows of it are known on the hub; name them with --train")
    own = revision if of.hub is not None and of.hub.name == of.train.name else None
    known = languages_of(of.name).items()
    english = next((code for code, language in known if language.code == SOURCE_LANGUAGE), SOURCE_LANGUAGE)
    for split in ("train", "dev"):
        if split in of.train.splits:
            yield from hub_rows(of.train, english, source, split, own)


def _english(done: PreparedSet, found: Iterator[Found]) -> Iterator[Found]:
    """Training rows of a file: English and for training, where they do not say otherwise; no test of theirs."""
    source = find_language(SOURCE_LANGUAGE)
    for one in found:
        if one.split == "test":
            done.left_out["rows of a test among the training rows"] += 1
        else:
            yield dataclasses.replace(one, split=one.split or "train", language=one.language or source)


def _write(done: PreparedSet, found: Iterator[Found], only: set[str] | None, max_train: int | None) -> None:
    """Write each row to the file of its split and language; the files appear when all are whole."""
    total, seen, others = 0, set[tuple[str, str, str]](), set[str]()
    opened: dict[tuple[str, str], TextIO] = {}
    with contextlib.ExitStack() as files:
        for one in found:
            total += 1
            try:
                split, language, row = _row(done.of, one)
            except RowError as error:
                reject(done.rejections, one.located, error)
                continue
            why = _unwanted(split, language, only, done.counts[split, language], max_train)
            if why is not None:
                done.left_out[why] += 1
                if split == "test":
                    others.add(language)
                continue
            place = (split, language)
            name = id_of(done.of, one.located.value, done.counts[place])
            while (split, language, name) in seen:
                name += "+"
            seen.add((split, language, name))
            if place not in opened:
                path = files.enter_context(atomic_file(done.folder / split / f"{language}.jsonl"))
                opened[place] = files.enter_context(path.open("w", encoding="utf-8", newline="\n"))
            opened[place].write(json.dumps({"id": name, "language": language, **row}, ensure_ascii=False) + "\n")
            done.counts[place] += 1
            done.labels[split, str(row["label"])] += 1
        if done.rejections:
            done.rejections.write(done.folder / REJECTED)
            done.rejections.check_share(total, MAX_REJECTED)
        if not any(split == "test" for split, _ in done.counts):
            out = "".join(f"; {count:,} {why}" for why, count in done.left_out.items() if count)
            told = f"{total:,} records, {len(done.rejections):,} refused{out}"
            there = (
                f"; its test is in {', '.join(sorted(others))}: name some of them with --languages" if others else ""
            )
            raise DataError(f"{done.of.name}: no row of a test in it ({told}){there}")
    _settle(done)


def _settle(done: PreparedSet) -> None:
    """Hash the new files, and remove those of an earlier call that are no part of this one."""
    new = {done.folder / split / f"{language}.jsonl" for split, language in done.counts}
    for split in ("train", "dev", "test"):
        for file in set((done.folder / split).glob("*.jsonl")) - new:
            file.unlink()
    if not done.rejections:
        (done.folder / REJECTED).unlink(missing_ok=True)
    done.files = {file.relative_to(done.folder).as_posix(): sha256_of(file) for file in sorted(new)}
    done.languages = {code: found for _, code in done.counts if (found := find_language(code)) is not None}


def _row(of: TaskSet, one: Found) -> tuple[str, str, dict[str, Any]]:
    problem = one.located.problem or one.problem
    if problem is not None:
        raise RowError(*problem)
    if one.split is None:
        raise RowError("no_split", "neither a column nor the file's name says its split: train, dev or test")
    if one.language is None:
        raise RowError("no_language", "neither a column nor the file's name says its language")
    return one.split, one.language.code, row_of(of, one.located.value)


def _unwanted(split: str, language: str, only: set[str] | None, count: int, max_train: int | None) -> str | None:
    """Why a good row is not written; None where it is."""
    if split == "train":
        if language != SOURCE_LANGUAGE:
            return "training rows in other languages than English: the task is learned in English alone"
        return "training rows beyond --max-train" if max_train is not None and count >= max_train else None
    if only is not None and language not in only and (split, language) != ("dev", SOURCE_LANGUAGE):
        return "languages that were not asked for"
    return None
