"""What an optimizer step was in each language: losses, tokens, agreement with the teacher, answers in another language.

A language is that of the completion: of the ground truth for (x, y), of what was asked for for a rollout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from dudi.distill.batch import MicroBatch
from dudi.objective.methods import SIGNALS
from dudi.objective.signals import Kind, Rows

KINDS: tuple[Kind, ...] = get_args(Kind)
LOSSES = 2 * len(SIGNALS)
"""Columns of losses: for each signal the summed loss and what it is divided by."""
AGREEMENT = 7
"""Columns of the watched positions: overlap, both entropies, positions, and the sums of log p_T - log p_S, of its
square, and of its number."""
SPOKEN = 2
"""Columns of rollouts: whose language could be told, and who were in another one than asked for."""
WIDTH = LOSSES + AGREEMENT + SPOKEN


def owners(batch: MicroBatch, kind: Kind, languages: Sequence[str]) -> Tensor:
    """(N,) index of its language for each completion token of a kind; one that is not listed is the last."""
    places = {language: place for place, language in enumerate(languages)}
    of_each = torch.tensor([places.get(scored.language, len(languages) - 1) for scored in batch.sequences[kind]])
    return torch.repeat_interleave(of_each, torch.tensor(batch.lengths(kind)))


def token_table(batches: Sequence[MicroBatch], languages: Sequence[str]) -> Tensor:
    """(kinds, L, 2) fp64: trained tokens and sequences of each kind in each language."""
    table = torch.zeros(len(KINDS), len(languages), 2, dtype=torch.float64)
    places = {language: place for place, language in enumerate(languages)}
    for batch in batches:
        for kind, sequences in batch.sequences.items():
            for scored in sequences:
                trained = float(scored.counted().sum())
                if trained > 0:
                    here = table[KINDS.index(kind), places.get(scored.language, -1)]
                    here += torch.tensor([trained, 1.0], dtype=torch.float64)
    return table


def language_shares(table: Tensor, languages: Sequence[str]) -> dict[tuple[Kind, str], float]:
    """What a token counts when each language counts by its rows: rows of the language over its tokens.

    The table is a `token_table` of a whole optimizer step, summed over the ranks.
    """
    return {
        (kind, language): rows / tokens
        for kind, of_kind in zip(KINDS, table.tolist(), strict=True)
        for language, (tokens, rows) in zip(languages, of_kind, strict=True)
        if tokens
    }


def loss_table(batch: MicroBatch, rows: Mapping[Kind, Rows], languages: Sequence[str]) -> Tensor:
    """(L, LOSSES) fp64: each signal's loss and its divisor, summed in each language, without a gradient."""
    table = torch.zeros(len(languages), LOSSES, dtype=torch.float64)
    for kind, part in rows.items():
        owner = owners(batch, kind, languages)
        for name, values in part.values.items():
            column = 2 * SIGNALS.index(name)
            by_pair = len(values) != len(owner) or name == "sequence"
            weights = torch.ones(len(values)) if by_pair else part.weights.cpu()
            of_value = owner[torch.tensor(part.lengths).cumsum(0) - 1] if by_pair else owner
            table[:, column].index_add_(0, of_value, (values.cpu() * weights).double())
            table[:, column + 1].index_add_(0, of_value, weights.double())
    return table


def agreement_metrics(line: Sequence[float], overlap_k: int) -> dict[str, float]:
    """Overlap and mean entropies of a line of the table; a teacher's that nobody knows (NaN: served) is left out."""
    overlap, student, teacher, positions = line[LOSSES : LOSSES + 4]
    if not positions:
        return {}
    found = {f"overlap@{overlap_k}": overlap / positions, "student_entropy": student / positions}
    return found if math.isnan(teacher) else found | {"teacher_entropy": teacher / positions}


def language_metrics(table: Tensor, languages: Sequence[str], overlap_k: int) -> dict[str, dict[str, Any]]:
    """The metrics of each language that occurred in a step, from (L, WIDTH) summed over micro-batches and ranks."""
    totals = table.sum(0)
    found: dict[str, dict[str, Any]] = {}
    for language, line in zip(languages, table.tolist(), strict=True):
        metrics: dict[str, Any] = {}
        for place, name in enumerate(SIGNALS):
            value, weight = line[2 * place : 2 * place + 2]
            if weight:
                metrics[f"loss/{name}"] = value / weight
                metrics[f"share/{name}"] = weight / float(totals[2 * place + 1])
        metrics |= agreement_metrics(line, overlap_k)
        detected, wrong = line[-SPOKEN:]
        if detected:
            metrics["rollout/wrong_language_rate"] = wrong / detected
        if metrics:
            found[language] = metrics
    return found


def deviations(ratios: Tensor) -> tuple[float, list[float | None]]:
    """Standard deviations of log p_T - log p_S, of all tokens and of each language; None of fewer than two tokens.

    Args:
        ratios: (L, 3) sums of the ratio, of its square, and of its number.
    """

    def deviation(line: Sequence[float]) -> float | None:
        total, squares, count = line
        return max(squares / count - (total / count) ** 2, 0.0) ** 0.5 if count >= 2 else None

    return deviation(ratios.sum(0).tolist()) or 0.0, [deviation(line) for line in ratios.tolist()]


def balance(ratios: Tensor, languages: Sequence[str]) -> dict[str, float]:
    """Factors that keep one noisy language from giving most of the gradient: clip(sigma_all / sigma_l, 1/4, 4).

    DN-MOPD (arXiv 2609.35347) balances domains so; here a domain is a language. The ratios are those of `deviations`.
    """
    whole, own = deviations(ratios)
    return {
        language: min(max(whole / sigma, 0.25), 4.0)
        for language, sigma in zip(languages, own, strict=True)
        if sigma and whole
    }
