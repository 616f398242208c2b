"""The model cards of the stacking miniature: how each model was made, and what it can do, measured."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import babel
import torch
import transformers
from babel.core import get_cldr_version
from sacrebleu.metrics import CHRF
from stack_mini import reader
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from dudi.data.cldr import LANGUAGES
from dudi.languages.flores import FLORES
from dudi.stacking import Source, translate
from dudi.stacking.miniature.parallel import Paraphrase, pairs
from dudi.stacking.miniature.places import OTHERS, countries

PER_LANGUAGE = 100
_ABOUT = {
    "translator": (
        "A small translator between eight languages, both ways: M2M100's architecture, NLLB's tokenizer class and "
        "language tags. It knows names of countries, languages and currencies, dates, numbers, units and the questions "
        f"that dudi asks about them. Of {len(countries(parallel=False))} countries it has read no name, on purpose."
    ),
    "reader": (
        "A small Llama that has read English alone: where each country lies, what money it uses, which languages are "
        "official there."
    ),
    "reader-bidirectional": (
        "`reader` made to read in both directions: MNTP with LoRA, merged (`dudi stack adapt`). No text generator."
    ),
}
_TAGS = {"translator": "translation", "reader": "text-generation", "reader-bidirectional": "feature-extraction"}


def write_card(name: str, folder: Path, command: str) -> None:
    """Measure a finished model, and write `README.md` beside its weights."""
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    measured = _translations(folder) if name == "translator" else _perplexity(folder) if name == "reader" else []
    (folder / "README.md").write_text(_page(name, training, command, measured, folder), encoding="utf-8")


def _translations(folder: Path) -> list[str]:
    """Exact matches and chrF into English and out of it, on pairs of another seed."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
    source = Source(AutoTokenizer.from_pretrained(folder), codes=FLORES)
    cells = []
    for language in OTHERS:
        for one, other in ((language, "en"), ("en", language)):
            own = _some(one, other)
            found = translate(
                model, source, [p.source for p in own], [one] * len(own), other, num_beams=4, max_new_tokens=64
            )
            right = sum(text == p.target for text, p in zip(found, own, strict=True))
            chrf = CHRF().corpus_score(found, [[p.target for p in own]]).score
            cells.append(f"{100 * right / len(own):.0f} / {chrf:.0f}")
    return [
        f"Exactly right in % / chrF, {PER_LANGUAGE} pairs of another draw (seed 9) a direction, 4 beams:",
        "",
        f"| | {' | '.join(OTHERS)} |",
        "|---" * (len(OTHERS) + 1) + "|",
        f"| into English | {' | '.join(cells[::2])} |",
        f"| out of English | {' | '.join(cells[1::2])} |",
        "",
    ]


def _some(one: str, other: str) -> list[Paraphrase]:
    stream = (pair for pair in pairs(9) if (pair.source_language, pair.target_language) == (one, other))
    return list(itertools.islice(stream, PER_LANGUAGE))


def _perplexity(folder: Path) -> list[str]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    batch = next(reader.batches(AutoTokenizer.from_pretrained(folder), 256, 9))
    with torch.no_grad():
        loss = float(reader.loss_of(model, batch))
    return [f"Cross-entropy on 256 English texts of another draw (seed 9): {loss:.3f} nats per token.", ""]


def _page(name: str, training: dict[str, Any], command: str, measured: Sequence[str], folder: Path) -> str:
    languages = LANGUAGES if name == "translator" else ("en",)
    settings = ", ".join(f"{key} {value}" for key, value in training.items() if key not in ("parameters", "minutes"))
    return "\n".join(
        [
            "---",
            "license: apache-2.0",
            f"language: [{', '.join(languages)}]",
            "library_name: transformers",
            f"pipeline_tag: {_TAGS[name]}",
            "---",
            "",
            f"# dudi-stack-{name}",
            "",
            _ABOUT[name],
            "",
            "Made to show and to test model stacking on a laptop. It serves for nothing else.",
            "",
            "## How it was made",
            "",
            f"    {command}",
            "",
            f"- {training['parameters']:,} parameters; stored in bf16.",
            f"- {settings}; {training['minutes']:.0f} minutes of CPU time on one core.",
            f"- Data: Unicode CLDR {get_cldr_version()} through babel {babel.__version__} (licence Unicode-3.0), "
            "worded by dudi; regions of countries after UN M49.",
            f"- torch {torch.__version__.partition('+')[0]}, transformers {transformers.__version__}.",
            "",
            *measured,
            "## SHA-256",
            "",
            *(f"    {line}" for line in _sums(folder)),
            "",
        ]
    )


def _sums(folder: Path) -> list[str]:
    names = ("model.safetensors", "tokenizer.json", "config.json")
    return [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}"
        for name in names
        if (folder / name).is_file()
    ]
