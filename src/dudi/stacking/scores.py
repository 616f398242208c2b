"""Answers to rows as scores in the form of all evaluations: by language, by part of the rows, and over languages."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dudi.evaluation.metrics import ACCURACY, MACRO_F1, OVERALL
from dudi.stacking.codes import same_language
from dudi.stacking.evaluation import judged
from dudi.stacking.rows import StackRow


def scores_of(per_language: Mapping[str, Mapping[str, float]], source_language: str) -> dict[str, Any]:
    """Scores in the form of all evaluations.

    `overall` is the mean over the languages without the one that was learned in: transfer is what is measured. Where
    that is the only one it is its score. Of each language `n`, `accuracy` and `macro_f1` are given.
    """
    by_language = {
        code: {ACCURACY: found[ACCURACY], MACRO_F1: found[MACRO_F1], "questions": int(found["n"])}
        for code, found in per_language.items()
    }
    counted = [by_language[code] for code in transferred(by_language, source_language)]
    overall: dict[str, Any] = {}
    for metric in (ACCURACY, MACRO_F1):
        overall[metric] = statistics.fmean(one[metric] for one in counted)
    overall["questions"] = sum(one["questions"] for one in counted)
    return {OVERALL: overall, "by_language": by_language}


def by_split(rows: Sequence[StackRow], predictions: Sequence[int], source_language: str) -> dict[str, Any]:
    """`by_split` of the scores: of each part of the rows the mean over languages, as `overall`; empty without parts."""
    found = {}
    for split in dict.fromkeys(row.split for row in rows if row.split is not None):
        chosen = [row for row in rows if row.split == split]
        answers = [answer for row, answer in zip(rows, predictions, strict=True) if row.split == split]
        found[split] = scores_of(judged(chosen, answers, 0.0).per_language, source_language)[OVERALL]
    return {"by_split": found} if found else {}


def transferred(codes: Iterable[str], source_language: str) -> list[str]:
    """The languages that count overall: all but the one that was learned in; that one where it is the only one."""
    every = list(dict.fromkeys(codes))
    return [code for code in every if not same_language(code, source_language)] or every
