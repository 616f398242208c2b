"""How well a model with a head answers, language by language."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence

import torch

from dudi.models.frozen import evaluating
from dudi.stacking.checks import check_reading
from dudi.stacking.modeling import MTLLMPreTrainedModel
from dudi.stacking.rows import StackRow
from dudi.stacking.tokens import SHORTENED, Source, of_like_length


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """The answers to some rows.

    Attributes:
        predictions: A class or a choice for each row.
        accuracy: Share of right answers, of rows with a label.
        macro_f1: Mean F1 of the classes that are labels or answers.
        per_language: `n`, `accuracy` and `macro_f1` of each language.
        seconds_per_row: Wall time of tokenizing and reading.
        shortened: Rows of each language that were longer than `max_length`; languages without any are left out.
    """

    predictions: list[int]
    accuracy: float
    macro_f1: float
    per_language: dict[str, dict[str, float]]
    seconds_per_row: float
    shortened: dict[str, int] = dataclasses.field(default_factory=dict)


def evaluate(
    model: MTLLMPreTrainedModel,
    source: Source,
    rows: Sequence[StackRow],
    *,
    batch_size: int = 32,
    max_length: int = 256,
    done: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Ask a model with a head, on its device, about rows, each read as its own language and cut at `max_length` tokens.

    Rows of similar length are read together; the answers come in the order of the rows. `done` is told how many more
    rows are through.

    Raises:
        DataError: a language code is unknown.
    """
    source.check_rows(rows)
    check_reading(model.reader, source, max_length)
    started = time.perf_counter()
    encoded = source.encode_rows(rows, max_length=max_length)
    answers = torch.zeros(len(rows), dtype=torch.long)
    for places in of_like_length(encoded, batch_size):
        batch = source.collate([encoded[place] for place in places])
        with evaluating(model):
            logits = model(**{key: value.to(model.device) for key, value in batch.items()}).logits
        answers[places] = logits.argmax(dim=-1).cpu()
        done(len(places))
    seconds = (time.perf_counter() - started) / max(len(rows), 1)
    long = Counter(row.language for row, ids in zip(rows, encoded, strict=True) if SHORTENED in ids)
    return dataclasses.replace(judged(rows, answers.tolist(), seconds), shortened=dict(long))


def judged(rows: Sequence[StackRow], predictions: list[int], seconds_per_row: float) -> Evaluation:
    """Answers against the rows' labels."""
    every: list[tuple[int, int]] = []
    by_language: dict[str, list[tuple[int, int]]] = {row.language: [] for row in rows}
    for row, answer in zip(rows, predictions, strict=True):
        if row.label is not None:
            every.append((row.label, answer))
            by_language[row.language].append((row.label, answer))
    per_language = {}
    for code, pairs in by_language.items():
        per_language[code] = {"n": float(len(pairs)), "accuracy": accuracy(pairs), "macro_f1": macro_f1(pairs)}
    return Evaluation(predictions, accuracy(every), macro_f1(every), per_language, seconds_per_row)


def accuracy(pairs: Sequence[tuple[int, int]]) -> float:
    """Share of (label, answer) that agree; NaN of none."""
    return sum(label == answer for label, answer in pairs) / len(pairs) if pairs else float("nan")


def macro_f1(pairs: Sequence[tuple[int, int]]) -> float:
    """Mean over classes of 2 TP / (labels + answers); classes that are neither do not count. NaN of no pairs."""
    classes = {value for pair in pairs for value in pair}
    if not classes:
        return float("nan")
    labels, answers = map(Counter, zip(*pairs, strict=True))
    right = Counter(label for label, answer in pairs if label == answer)
    scores = [2 * right[one] / (labels[one] + answers[one]) for one in classes]
    return sum(scores) / len(scores)
