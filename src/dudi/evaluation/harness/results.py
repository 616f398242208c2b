"""From lm_eval's results to scores by language and task, standard errors, and a line for each question."""

from __future__ import annotations

import functools
import json
import math
import os
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from lm_eval.api.group import Group
from lm_eval.api.metrics import bits_per_byte, mean, stderr_for_metric
from lm_eval.api.task import Task
from sacrebleu.metrics import CHRF

from dudi.evaluation.harness.names import Named
from dudi.evaluation.metrics import OVERALL, metric_of

BITS = "bits_per_byte"
CHRF_WORDS = {"chrf": 0, "chrf++": 2}
"""Word n-grams of the two; characters up to six, beta 2, as sacrebleu has them."""
BOOTSTRAPS = 1000
STDERR = "stderr"
PLAIN = "none"
"""lm_eval's filter that changes nothing."""
_UNKNOWN = "N/A"
"""What lm_eval writes for a standard error that nobody knows."""
Leaf = dict[str, Any]
"""Metric to value, `questions`, and under `stderr` metric to standard error."""


def summed_up(
    tasks: Mapping[str, tuple[Named, Task]], groups: Mapping[str, Group], results: Mapping[str, Any]
) -> dict[str, Any]:
    """The scores of one seed, of what `lm_eval.evaluator.evaluate` returned.

    A cell is one task in one language, with lm_eval's own numbers. Everything above is the plain mean of its cells, for
    each metric of those that have it; its standard error takes them for independent. A group's own score is what
    lm_eval makes of its tasks as the group's `aggregate_metric_list` says; without one it has none.

    Returns:
        `overall`, `by_language`, `by_task`, `by_language_and_task` (two keys), as `SeedScores.scores`; `by_group` where
        there is a group with a score.
    """
    values, samples = results["results"], results["samples"]
    cells = {name: _cell(task, values[name], samples[name]) for name, (_, task) in tasks.items()}
    by_language: dict[str, dict[str, Leaf]] = {}
    by_task: dict[str, list[Leaf]] = {}
    for name, leaf in cells.items():
        one, _ = tasks[name]
        by_task.setdefault(one.family, []).append(leaf)
        if one.language:
            by_language.setdefault(one.language, {})[one.family] = leaf
    scores: dict[str, Any] = {OVERALL: averaged(cells.values())}
    scores["by_language"] = {code: averaged(own.values()) for code, own in by_language.items()}
    scores["by_task"] = {family: averaged(own) for family, own in by_task.items()}
    scores["by_language_and_task"] = by_language
    by_group = {name: _group_score(group, cells) for name, group in groups.items() if group.has_aggregation}
    return scores | ({"by_group": by_group} if by_group else {})


def directions(tasks: Iterable[Task]) -> dict[str, int]:
    """Which way the metrics are better that only their tasks know: 1 where more is, -1 where less is.

    What two tasks say in two ways, and what none says, is left out.
    """
    said: dict[str, set[int]] = {}
    for task in tasks:
        filters = [own.name for own in getattr(task, "_filters", ())] or [PLAIN]
        for metric, higher in task.higher_is_better().items():
            if isinstance(higher, bool):
                for chosen in filters:
                    said.setdefault(metric if chosen == PLAIN else f"{metric},{chosen}", set()).add(1 if higher else -1)
    return {name: min(ways) for name, ways in said.items() if len(ways) == 1 and not metric_of(name).better}


def averaged(leaves: Collection[Leaf]) -> Leaf:
    """The plain mean of cells."""
    found: Leaf = {"questions": sum(leaf["questions"] for leaf in leaves)}
    errors = {}
    for name in dict.fromkeys(name for leaf in leaves for name in leaf if name not in ("questions", STDERR)):
        there = [leaf for leaf in leaves if name in leaf]
        found[name] = statistics.fmean(leaf[name] for leaf in there)
        parts = [leaf[STDERR].get(name) for leaf in there]
        if all(part is not None for part in parts):
            errors[name] = math.sqrt(sum(part**2 for part in parts)) / len(parts)
    return found | {STDERR: errors}


def _group_score(group: Group, cells: Mapping[str, Leaf]) -> Leaf:
    """What lm_eval makes of a group's tasks, from our numbers of each and our standard errors."""
    measured: dict[str, dict[str, Any]] = {}
    for task, leaf in cells.items():
        own = measured[task] = {"sample_len": leaf["questions"]}
        for name in (name for name in leaf if name not in ("questions", STDERR)):
            metric, _, chosen = name.partition(",")
            own[f"{metric},{chosen or PLAIN}"] = leaf[name]
            own[f"{metric}_stderr,{chosen or PLAIN}"] = leaf[STDERR].get(name, _UNKNOWN)
    found: Leaf = {}
    errors: dict[str, float] = {}
    for key, value in group.aggregate(measured).items():
        metric, comma, chosen = key.partition(",")
        if comma and value != _UNKNOWN:
            name = metric.removesuffix("_stderr")
            where = found if name == metric else errors
            where[name if chosen == PLAIN else f"{name},{chosen}"] = float(value)
    members = {task.task_name for task in group.get_all_tasks()}
    return {"questions": sum(cells[name]["questions"] for name in members), **found, STDERR: errors}


def _cell(task: Task, values: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> Leaf:
    """One task's numbers: metrics by name, those behind a filter as `metric,filter`."""
    found: Leaf = {"questions": len({sample["doc_id"] for sample in samples})}
    errors: dict[str, float] = {}
    for key, value in values.items():
        metric, comma, chosen = key.partition(",")
        if not comma or metric.endswith("_stderr") or isinstance(value, str):
            continue
        name = metric if chosen == PLAIN else key
        own = [sample[metric] for sample in samples if sample["filter"] == chosen and metric in sample]
        found[name] = float(value)
        error = standard_error(metric, own, task.aggregation().get(metric, mean))
        errors |= {} if error is None else {name: error}
    if task.OUTPUT_TYPE == "loglikelihood":
        own = [_target_bits(sample) for sample in samples]
        found[BITS] = bits_per_byte(own)
        errors |= {} if len(own) < 2 else {BITS: _ratio_error(own)}
    return found | {STDERR: errors}


def standard_error(metric: str, values: Sequence[Any], aggregation: Callable[..., float]) -> float | None:
    """The standard error of an aggregated metric; None where nobody knows one.

    Of a mean: s / sqrt(n). Of bits per byte: of the ratio of two sums, by the delta method. Of chrF and chrF++: by
    sacrebleu's bootstrap of the corpus score. Of the others that lm_eval can bootstrap: by 1,000 draws (its own command
    line makes 100,000).
    """
    if len(values) < 2:
        return None
    if aggregation is mean:
        return statistics.stdev(map(float, values)) / math.sqrt(len(values))
    if aggregation is bits_per_byte:
        return _ratio_error(values)
    if metric in CHRF_WORDS:
        references, answers = zip(*((_text(gold), _text(answer)) for gold, answer in values), strict=True)
        try:
            score = _chrf(metric).corpus_score(answers, [references], n_bootstrap=BOOTSTRAPS)
        except TypeError:  # where some draws score 0, sacrebleu averages floats of two precisions, which it cannot
            return None
        told = json.loads(score.format(width=9, signature=str(_chrf(metric).get_signature()), is_json=True))
        return float(told.get("confidence_var", 0.0)) / 1.96  # half of the 95% interval; none where all is 0
    os.environ["DISABLE_MULTIPROC"] = "1"  # or a pool of processes is forked off this one, torch and all
    estimate = stderr_for_metric(aggregation, BOOTSTRAPS)
    return None if estimate is None else float(estimate(values))


def _ratio_error(pairs: Sequence[tuple[float, float]]) -> float:
    """The standard error of -sum(ll) / sum(bytes) / log(2) over texts."""
    total, bytes_ = (sum(part) for part in zip(*pairs, strict=True))
    ratio = total / bytes_
    spread = statistics.stdev(nats - ratio * size for nats, size in pairs)
    return spread * math.sqrt(len(pairs)) / bytes_ / math.log(2)


def _target_bits(sample: Mapping[str, Any]) -> tuple[float, float]:
    """Log-likelihood and bytes of the target of a task of the type loglikelihood."""
    likelihood, _ = sample["filtered_resps"][0]
    return float(likelihood), float(max(1, len(_text(sample["target"]).strip().encode("utf-8"))))


def _text(value: Any) -> str:
    return str(value[0] if isinstance(value, list | tuple) and value else value)


@functools.cache
def _chrf(metric: str) -> CHRF:
    return CHRF(word_order=CHRF_WORDS[metric])


# --- single questions


def question_lines(
    tasks: Mapping[str, tuple[Named, Task]], results: Mapping[str, Any], seed: int
) -> list[dict[str, Any]]:
    """A line of `answers.jsonl` for each question: what was asked, what was right, what came, and its own scores.

    `scores` has what a question scores by itself: 0 or 1 for accuracy, the sentence's chrF, the text's bits per byte,
    with its bytes under `weights`. A paired test between two models reads these.
    """
    lines: list[dict[str, Any]] = []
    for name, (one, task) in tasks.items():
        by_question: dict[int, dict[str, Any]] = {}
        for sample in results["samples"][name]:
            line = by_question.setdefault(sample["doc_id"], _line(sample, name, one, task, seed))
            scores, weights = _scores(sample, task)
            line["scores"] |= scores
            line["weights"] |= weights
        lines += by_question.values()
    return lines


def _line(sample: Mapping[str, Any], name: str, one: Named, task: Task, seed: int) -> dict[str, Any]:
    document, target, responses = sample["doc"], sample["target"], sample["filtered_resps"]
    line = {
        "id": f"{name}/{sample['doc_id']}",
        "language": one.language,
        "task": one.family,
        "question": str(task.doc_to_text(document)),
        "reference": _text(target),
        "answer": "",
        "scores": {},
        "weights": {},
        "seed": seed,
    }
    if task.OUTPUT_TYPE == "multiple_choice":
        choices = [str(choice) for choice in task.doc_to_choice(document)] if task.config.doc_to_choice else []
        likelihoods = [round(float(likelihood), 4) for likelihood, _ in responses]
        best = max(range(len(choices) or len(likelihoods)), key=lambda place: likelihoods[place])
        right = target if isinstance(target, int) and 0 <= target < len(choices) else None
        line |= {"log_likelihoods": likelihoods, "answer": choices[best] if choices else str(best)}
        line |= {} if right is None else {"reference": choices[right], "exact": choices[best] == choices[right]}
    elif task.OUTPUT_TYPE == "generate_until":
        line["answer"] = _text(responses[0] if responses else "")
    return line


def _scores(sample: Mapping[str, Any], task: Task) -> tuple[dict[str, float], dict[str, float]]:
    """What one question scores by itself, and what it weighs where that is not one."""
    scores: dict[str, float] = {}
    texts: dict[str, tuple[float, float]] = {}
    for metric in sample["metrics"]:
        value, aggregation = sample[metric], task.aggregation().get(metric, mean)
        name = metric if sample["filter"] == PLAIN else f"{metric},{sample['filter']}"
        if metric in CHRF_WORDS:
            gold, answer = value
            scores[name] = _chrf(metric).sentence_score(_text(answer), [_text(gold)]).score
        elif aggregation is bits_per_byte:
            texts[name] = value
        elif aggregation is mean and isinstance(value, bool | int | float):
            scores[name] = float(value)
    if task.OUTPUT_TYPE == "loglikelihood":
        texts[BITS] = _target_bits(sample)
    for name, (likelihood, size) in texts.items():
        scores[name] = -likelihood / math.log(2) / size
    return scores, {name: float(size) for name, (_, size) in texts.items()}
