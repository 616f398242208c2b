"""A model's answers to questions, over one or several seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dudi.evaluation.records import Evaluation, Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dudi.data.chat import ChatFormat
    from dudi.evaluation.asking import Decoding
    from dudi.evaluation.benchmark import Answered, Item

BATCH_SIZE = 64
"""Questions that are decoded together."""


def evaluate(
    model: PreTrainedModel,
    chat: ChatFormat,
    items: Sequence[Item],
    decoding: Decoding,
    *,
    name: str,
    model_name: str,
    benchmark: Mapping[str, Any],
    seeds: Sequence[int] = (0,),
    candidates: Sequence[str] | None = None,
    batch_size: int = BATCH_SIZE,
    keep: Callable[[Answered], None] = lambda answered: None,
    done: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Put questions to a model, once for each seed.

    Args:
        model: Any causal language model.
        chat: Its chat format.
        items: What is asked.
        decoding: How answers are decoded.
        name: What tables call the model.
        model_name: Its folder or hub name.
        benchmark: What is asked, for the record; the decoding is added.
        seeds: Of the sampling; with temperature 0 one alone.
        candidates: The languages that an answer can be in; None: all that dudi knows.
        batch_size: Questions that are decoded together; answers do not depend on it.
        keep: Given every answer.
        done: Told how many more questions are through.

    Returns:
        Scores by seed, seeds ascending. `about["guessing"]` has the floor's, where it is known.

    Raises:
        ConfigError: seeds that greedy decoding cannot tell apart, or an option out of its range.
    """
    from dudi.evaluation.benchmark import put
    from dudi.evaluation.summary import FLOOR, summarise
    from dudi.languages.registry import load_languages

    decoding.check_seeds(seeds)
    bits: dict[str, float] | None = None
    runs: list[Run] = []
    guessing = None
    for seed in sorted(seeds):
        answered = put(
            "model",
            model,
            chat,
            items,
            decoding,
            seed=seed,
            candidates=sorted(load_languages()) if candidates is None else candidates,
            batch_size=batch_size,
            bits=bits,
            done=done,
        )
        bits = {one.id: one.bits for one in answered}
        summary = summarise(answered)
        guessing = summary.get(FLOOR)
        runs.append(Run(seed, summary["model"]))
        for one in answered:
            keep(dataclasses.replace(one, subject=name))
    how = {**benchmark, "decoding": decoding.described()}
    return Evaluation(name, model_name, how, tuple(runs), {"guessing": guessing} if guessing else {})
