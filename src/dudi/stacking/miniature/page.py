"""The page `docs/results/mtllm.md`: what the demo found, over seeds."""

from __future__ import annotations

import dataclasses

import torch
import transformers

from dudi.data.cldr.locales import cldr_version
from dudi.stacking.miniature.contest import tests
from dudi.stacking.miniature.places import OTHERS, countries
from dudi.stacking.miniature.results import ABOUT, lead_table, probe_table, score_table
from dudi.stacking.miniature.running import Found
from dudi.stacking.miniature.tasks import TASKS, training_rows, was_in_parallel


def page(found: Found) -> str:
    """The page as Markdown: tables, tests, times, and what was done to get them."""
    lines = [
        f"# MT-LLM in miniature, over {found.seeds} seed{'s' if found.seeds > 1 else ''}",
        "",
        f"    dudi stack demo --seeds {found.seeds} --output docs/results",
        "",
        *_setting(),
        "",
        "What the numbers mean: `docs/mtllm.md`, *In miniature*.",
        "",
    ]
    for task in TASKS:
        sides = [was_in_parallel(row) for row in tests(task, found.budget) if row.language == "en"]
        named, hidden = sum(sides), len(sides) - sum(sides)
        lines += [
            f"## {task}: {ABOUT[task]}",
            "",
            f"{len(training_rows(task))} English training rows; {named} test rows a language about countries that the "
            f"parallel text names, {hidden} about countries that it hides (the last column, mean of seven languages). "
            "Right answers in %, mean ± standard deviation over seeds.",
            "",
            *score_table(found.scores, task),
            "",
        ]
    return "\n".join([*lines, *_tests(found), *_stage1(found), *_speed(found), *_budget(found)])


def _setting() -> list[str]:
    return [
        "All models are the package's own (`src/dudi/stacking/miniature/models`): a translator of eight languages, "
        "whose parallel text names countries, languages and currencies and holds no fact about the world, and a Llama "
        "that has read English alone and knows where countries lie, what money they use and which languages they "
        f"speak. Tasks are learned from English rows about {len(countries(training=True))} countries and tested on "
        f"the other {len(countries(training=False))}, so that an answer needs what the LLM knows, "
        "in a language that the LLM has never read.",
        "",
        "- *LLM, zero-shot*: the LLM, tuned on the English rows, reads the other language's text as bytes.",
        "- *translate-test*: the translator's decoder writes English (beam search), and the tuned LLM reads it.",
        "- *encoder alone*: the translator's encoder, tuned on the English rows (LoRA).",
        "- *Stage 2 only*: the stack learns the tuned LLM's vectors, without Stage 1.",
        "- *Stage 1, then fine-tuned*: the stack after Stage 1, tuned on labels.",
        "- *MT-LLM*: Stage 1, then the tuned LLM's vectors (Stage 2).",
    ]


def _tests(found: Found) -> list[str]:
    seeds = f"{found.seeds} seeds" if found.seeds > 1 else "one seed"
    asked = "; then eps_min of Almost Stochastic Order over the seeds" if found.seeds > 1 else ""
    return [
        "## Is it a difference?",
        "",
        f"MT-LLM less each rival, in points, mean accuracy over the seven languages, {seeds}; in brackets 95 % from "
        f"drawing countries again, with all their languages, and seeds with them{asked}. Bold: a lead that both carry. "
        "*named*, *hidden*: whether the parallel text names the country.",
        "",
        *lead_table(found.scores),
        "",
    ]


def _stage1(found: Found) -> list[str]:
    if not found.probes:
        return []
    return [
        "## What Stage 1 does, without a label or a translation",
        "",
        "The stack's vector of a sentence against the LLM's vector of its English, on the test sentences of `region` "
        "(named and hidden), seed 0: fraction of variance unexplained (lower is better) and cosine.",
        "",
        *probe_table(found.probes),
        "",
    ]


def _speed(found: Found) -> list[str]:
    translate, stacked = found.seconds["translate"], found.seconds["mtllm"]
    rows = [(code, found.quality[code]) for code in OTHERS if code in found.quality]
    quality = ", ".join(f"{code} {own['exact']:.0f} ({own['chrf']:.0f})" for code, own in rows)
    return [
        "## What it costs",
        "",
        f"One test sentence of `region`: translate-test {1000 * translate:.1f} ms, MT-LLM {1000 * stacked:.2f} ms, "
        f"{translate / stacked:.0f} times less (one thread, batches of 32, {found.budget.beams} beams, both in turn "
        "over the same rows, median of three rounds). MT-LLM decodes nothing.",
        "",
        f"What translate-test reads, named countries, exactly right in % (chrF): {quality}.",
        "",
    ]


def _budget(found: Found) -> list[str]:
    values = ", ".join(f"`{key}` {value}" for key, value in dataclasses.asdict(found.budget).items())
    return [
        "## How long each part learned",
        "",
        f"{values}. The models' cards say how they were made. CLDR {cldr_version()}, torch "
        f"{torch.__version__.partition('+')[0]}, transformers {transformers.__version__}.",
        "",
    ]
