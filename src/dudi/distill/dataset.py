"""Rows that are given in Python: what they may be, which are taken, what is said of the others; a trainer of them."""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

from dudi.data.chat import ChatFormat
from dudi.data.examples import Example, ExampleSet, ListedExamples, digest_of, tokenise
from dudi.data.records import Located
from dudi.data.rejections import Rejections
from dudi.data.rows import Row, RowError
from dudi.data.sources import RowIds, check, note_of_others, reject
from dudi.distill.arguments import DudiConfig
from dudi.distill.keys import SEA_LANGUAGES
from dudi.errors import ConfigError, DataError
from dudi.training.logged import LoggedTrainer

Records = Iterable[Mapping[str, Any] | Row]
UNKNOWN = "und"
"""The language of a row that does not say it, where nothing asks for it (BCP 47's word for undetermined)."""
MAX_REJECTED_SHARE = 0.05


@dataclasses.dataclass(eq=False)
class RowReader:
    """Reads the rows of one run: checks them, makes their ids unique, tokenises them.

    Attributes:
        args: The run's keys: a method without a verbalizer takes rows of any language, and of none.
        teachers: The chat formats of the teachers, the main one's in front.
        vocabulary: The ids that both heads share: a completion with another one cannot be judged.
        languages: The languages that are known.
    """

    args: DudiConfig
    student: ChatFormat
    teachers: Sequence[ChatFormat]
    vocabulary: int
    languages: tuple[str, ...]

    def read_all(self, dataset: Any, name: str, rejections: Rejections) -> tuple[Any, int]:
        """As `read`; examples and None stay as they are, several datasets of evaluation keep their names."""
        if dataset is None or isinstance(dataset, ExampleSet | ListedExamples):
            return dataset, 0 if dataset is None else len(dataset.examples)
        if not isinstance(dataset, Mapping) or name not in ("eval_dataset", "test_dataset"):
            return self.read(dataset, name, rejections)
        found, total = {}, 0
        for key, one in dataset.items():
            found[key], rows = self.read_all(one, f"{name}[{key!r}]", rejections)
            total += rows
        return found, total

    def read(self, dataset: Records, name: str, rejections: Rejections) -> tuple[ExampleSet, int]:
        """The examples of a dataset (`Row`s, or mappings as users write them), and how many rows it had.

        Raises:
            ConfigError: it is no list of rows.
            DataError: no row is left.
        """
        given = _listed(dataset, name)
        rows = self._trained(self._rows(given, name, rejections), name)
        _check_left(rows, name, len(given), rejections)
        teacher, others = next(iter(self.teachers), None), self.teachers[1:]
        examples = tokenise(rows, self.student, teacher, self.args.max_length, rejections, others)
        kept = [example for example in examples.examples if self._is_judged(example, rejections)]
        _check_left(kept, name, len(given), rejections)
        if len(kept) < len(examples.examples):
            cut = Counter(example.row.language for example in kept if not example.ended)
            examples = ExampleSet(kept, dict(cut), digest_of(kept))
        return examples, len(given)

    def _rows(self, given: Sequence[Any], name: str, rejections: Rejections) -> list[Row]:
        ids, rows = RowIds(), []
        for number, record in enumerate(given, start=1):
            located = Located(name, number, record)
            try:
                row = record if isinstance(record, Row) else self._checked(located)
                rows.append(ids.unique(row))
            except RowError as error:
                reject(rejections, located, error)
        return rows

    def _trained(self, rows: list[Row], name: str) -> list[Row]:
        """The training rows in the languages that the keys name, as a recipe takes them; in all, where they name none.

        Rows that are evaluated on, or that say no language, are all taken.
        """
        wanted = {*self.args.languages, UNKNOWN}
        if not name.startswith("train") or tuple(self.args.languages) == SEA_LANGUAGES:
            return rows
        others = Counter(row.language for row in rows if row.language not in wanted)
        if others and self.args.process_index == 0:
            warnings.warn(note_of_others(name, self.args.languages, others), stacklevel=5)
        return [row for row in rows if row.language in wanted]

    def _checked(self, located: Located) -> Row:
        languages = self.args.languages
        if self.args.verbalizer != "none":
            return check(located, self.languages, languages[0] if len(languages) == 1 else None, "language")
        record = located.value
        silent = isinstance(record, Mapping) and record.get("language") in (None, "")
        return check(located, None, UNKNOWN if silent else None, "language")

    def _is_judged(self, example: Example, rejections: Rejections) -> bool:
        """Whether both heads know every token of the completion: a student may have tokens that its teacher lacks."""
        highest = int(example.completion.max())
        if highest < self.vocabulary:
            return True
        token = self.student.tokenizer.convert_ids_to_tokens(highest)
        rejections.add(
            "token_beyond_the_teacher",
            where=example.row.file or "the dataset",
            line=example.row.line,
            row_id=example.row.id,
            detail=f"its answer needs token {highest} ({token!r}), and student and teacher share {self.vocabulary} ids",
            excerpt=example.row.completion,
        )
        return False


def _listed(dataset: Records, name: str) -> Sequence[Any]:
    """All rows of what may be a dataset."""
    if isinstance(dataset, str | Path):
        raise ConfigError(f"{name}: '{dataset}' is a name; give its rows, as dudi.data.sources.load_rows reads them")
    if isinstance(dataset, Mapping):
        splits = ", ".join(map(str, list(dataset)[:6]))
        raise ConfigError(f"{name}: several datasets ({splits}); give one of them, as in dataset['train']")
    if not isinstance(dataset, Sized):
        raise ConfigError(
            f"{name}: streaming datasets are not supported: the reference reads every row once, before the first step; "
            "save the rows with `dudi prepare` and give the file"
        )
    given = list(dataset)
    if not given:
        raise DataError(f"{name}: the dataset has no rows")
    return given


def _check_left(rows: Sequence[Any], name: str, total: int, rejections: Rejections) -> None:
    """Say why no row is left, where none is."""
    if not rows:
        reasons = "; ".join(line.strip() for line in rejections.summary()[:3])
        raise DataError(f"{name}: no row is left of {total}: {reasons or 'none is in a language that is trained'}")


def tell_rejections(
    rejections: Rejections, total: int, args: DudiConfig, share: float, file: str = "rejected.jsonl"
) -> None:
    """Write down in a file of the run's folder what was not taken, and warn with the reasons.

    Raises:
        DataError: more than `share` of the `total` rows were rejected.
    """
    if not len(rejections):
        return
    if args.process_index == 0:
        args.folder.mkdir(parents=True, exist_ok=True)
        rejections.write(args.folder / file)
        warnings.warn("rows that were not taken:\n" + "\n".join(rejections.summary()), stacklevel=4)
    rejections.check_share(total, share)


class RowTrainer(LoggedTrainer):
    """Reads rows: those it was made with, others in their place, and those of one evaluation."""

    args: DudiConfig
    reader: RowReader
    max_rejected_share: float = MAX_REJECTED_SHARE

    @property
    def train_dataset(self) -> Any:
        """The examples that are trained on; other rows can be put in their place before `train`, as in `Trainer`."""
        return self._train_examples

    @train_dataset.setter
    def train_dataset(self, dataset: Any) -> None:
        examples = self._read(dataset, "train_dataset")
        if isinstance(examples, ExampleSet):
            self.use_examples(examples)
            self._identity = None  # it is another run
        else:
            self._train_examples = examples

    def use_examples(self, examples: ExampleSet) -> None:
        """Train on these, which may be other targets for the same rows."""
        self._train_examples = ListedExamples(examples.examples)

    @property
    def eval_dataset(self) -> Any:
        """The examples of evaluation, by name where there are several sets; other rows can be put in their place."""
        return self._eval_examples

    @eval_dataset.setter
    def eval_dataset(self, dataset: Any) -> None:
        self._eval_examples = listed(self._read(dataset, "eval_dataset"))

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """As `Trainer`'s, for rows as users write them too: one dataset, several by name, or the name of one it has."""
        known = eval_dataset is None or isinstance(eval_dataset, str)
        given = eval_dataset if known else listed(self._read(eval_dataset, "eval_dataset"))
        return super().evaluate(given, ignore_keys, metric_key_prefix)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """As `Trainer`'s, for rows as users write them too: `predict` gives the metrics of them, and no logits."""
        return super().get_test_dataloader(listed(self._read(test_dataset, "test_dataset")))

    def _read(self, dataset: Any, name: str) -> Any:
        rejections = Rejections()
        examples, total = self.reader.read_all(dataset, name, rejections)
        # Beside the file of the rows that it was made with.
        tell_rejections(rejections, total, self.args, self.max_rejected_share, f"rejected-{name}.jsonl")
        return examples


def listed(examples: Any) -> Any:
    """Examples as the datasets that `Trainer` reads."""
    if isinstance(examples, dict):
        return {name: listed(one) for name, one in examples.items()}
    return ListedExamples(examples.examples) if isinstance(examples, ExampleSet) else examples
