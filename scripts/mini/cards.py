"""The model cards of the mini models: how they were made, and what they know, measured on the benchmark."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import babel
import torch
import transformers
from babel.core import get_cldr_version
from mini.corpus import WEAK, WEAK_SHARE, samples

from dudi.data.chat import ChatFormat, chat_format
from dudi.data.cldr import LANGUAGES
from dudi.data.cldr.benchmark import TASKS, questions
from dudi.evaluation.cldr_qa import items_of
from dudi.evaluation.generate import Decoding
from dudi.evaluation.questions import ChosenQuestions
from dudi.evaluation.summary import Answered
from dudi.files import sha256_of
from dudi.models.load import load_model, load_tokenizer
from dudi.tables import grid_of, markdown

PER_KIND = 6
"""Questions of each kind and language that a card's scores are made of."""

_ABOUT = {
    "teacher": (
        "A small teacher: it answers questions about CLDR's facts in eight languages, in every wording of dudi's "
        f"verbalizer. By construction it is weak in {' and '.join(WEAK)}: there it has read {WEAK_SHARE:.0%} of the "
        "facts."
    ),
    "base": (
        "A small base student: it knows the names of countries, languages and currencies in eight languages, and to "
        "answer in the language that it is asked for. It has read none of the facts that the benchmark asks for."
    ),
    "small": "`dudi-mini-base` at half its size: it has read the same, in the same order.",
    "llama": "`dudi-mini-base` in Llama's architecture: it has read the same, in the same order.",
}


def write_card(role: str, folder: Path, command: str) -> None:
    """Ask a finished model, and write `README.md` beside its weights."""
    tokenizer = load_tokenizer(str(folder))
    chat = chat_format(tokenizer, {}, role)
    model = load_model(str(folder), dtype=torch.float32)
    asked = _thinned(questions())
    answered = ChosenQuestions(items_of(asked), Decoding(64)).answers(model, chat)
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    text = _page(role, training, command, _scores(answered), _fertility(chat), _sums(folder))
    (folder / "README.md").write_text(text, encoding="utf-8")


def _thinned(every: Sequence[Any]) -> list[Any]:
    """At most `PER_KIND` questions of each kind, language and split: a few thousand in all."""
    taken: Counter[tuple[str, str, str]] = Counter()
    kept = []
    for question in every:
        key = (question.fact.kind, question.row.language, question.split)
        taken[key] += 1
        if taken[key] <= PER_KIND:
            kept.append(question)
    return kept


def _scores(answered: Sequence[Answered]) -> str:
    """Exact match in percent: a row per task, a column per language."""
    rows = []
    for task in (*TASKS, "all"):
        hits = [
            [one.exact for one in answered if one.language == code and task in (one.task, "all")] for code in LANGUAGES
        ]
        rows.append((task.replace("_", " "), [f"{100 * sum(own) / len(own):.0f}" if own else "-" for own in hits]))
    return markdown(grid_of(LANGUAGES, rows, corner="task"))


def _fertility(chat: ChatFormat) -> list[str]:
    """Tokens per character of answers, per language."""
    tokens: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    for _, sample in zip(range(4000), samples("teacher", 1), strict=False):
        tokens[sample.language] += len(chat.answer_ids(sample.answer)) - 1
        characters[sample.language] += len(sample.answer)
    cells = [f"{tokens[code] / characters[code]:.2f}" for code in LANGUAGES]
    return [f"| {' | '.join(LANGUAGES)} |", "|---" * len(LANGUAGES) + "|", f"| {' | '.join(cells)} |"]


def _sums(folder: Path) -> list[str]:
    names = ("model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja")
    return [f"{sha256_of(folder / name)}  {name}" for name in names]


def _page(role: str, training: dict[str, Any], command: str, scores: str, fertility: list[str], sums: list[str]) -> str:
    shape = training["shape"]
    return "\n".join(
        [
            "---",
            "license: apache-2.0",
            f"language: [{', '.join(LANGUAGES)}]",
            "library_name: transformers",
            "pipeline_tag: text-generation",
            "---",
            "",
            f"# dudi-mini-{role}",
            "",
            _ABOUT[role],
            "",
            "Made to show and to test distillation on a laptop. It knows nothing else and serves for nothing else.",
            "",
            "## How it was made",
            "",
            f"    {command}",
            "",
            f"- {shape.get('family', 'qwen3').capitalize()} architecture, {training['parameters']:,} parameters: "
            f"{shape['layers']} layers of width {shape['hidden']}, {shape['heads']} heads, tied embeddings; stored in "
            "bf16.",
            f"- {training['samples']:,} conversations in batches of {shape['batch']}, loss on the answers, "
            f"Muon and AdamW at {shape['learning_rate']}, seed {training['seed']}; {training['minutes']:.0f} minutes "
            f"on one core beside the other model; last loss {training['final_loss']} nats per token.",
            f"- Data: Unicode CLDR {get_cldr_version()} through babel {babel.__version__} (licence Unicode-3.0), "
            "worded by dudi; `scripts/mini/corpus.py` says what is drawn how often.",
            f"- torch {torch.__version__.partition('+')[0]}, transformers {transformers.__version__}.",
            "",
            "## What it knows",
            "",
            f"Exact match in percent on `cldr-qa-1` (test part, up to {PER_KIND} questions of each kind, language and "
            "split, greedy), from the stored weights:",
            "",
            scores,
            "",
            "Tokens per character of an answer:",
            "",
            *fertility,
            "",
            "## SHA-256",
            "",
            *(f"    {line}" for line in sums),
            "",
        ]
    )
