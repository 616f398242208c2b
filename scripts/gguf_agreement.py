"""How often a GGUF file's greedy answers, by llama.cpp, are those of the folder that it was made of.

    python scripts/gguf_agreement.py models/smollm2-135m student.Q8_0.gguf data/real/parallel.jsonl --per-language 5

Prompts are those of the first rows of each language. Printed for each: answers that are the same in every token, and
the share of tokens before the first that differs. Needs `pip install xllamacpp`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main() -> None:
    """Ask both, and print a line for each language."""
    parser = argparse.ArgumentParser(description="Greedy answers of a GGUF file beside its folder's.")
    parser.add_argument("folder")
    parser.add_argument("file", type=Path)
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--tokens", type=int, default=32, metavar="N")
    parser.add_argument("--per-language", type=int, default=5, metavar="N")
    given = parser.parse_args()
    import torch

    from dudi.data.chat import chat_format
    from dudi.models.load import load_model, load_tokenizer
    from llama_cpp import LlamaCpp

    tokenizer, model = load_tokenizer(given.folder), load_model(given.folder).eval()
    chat = chat_format(tokenizer, {}, given.folder) if tokenizer.chat_template else None
    there = LlamaCpp(given.file, tokens=2048)
    prompts = defaultdict(list)
    for row in map(json.loads, itertools.chain.from_iterable(file.open(encoding="utf-8") for file in given.rows)):
        if len(prompts[row["language"]]) < given.per_language:
            prompts[row["language"]].append(row["messages"][:-1])
    for language, messages in sorted(prompts.items()):
        same, kept, total = 0, 0, 0
        for turns in messages:
            ids = chat.prompt_ids(turns) if chat else tokenizer(turns[-1]["content"])["input_ids"]
            with torch.inference_mode():
                wanted = model.generate(torch.tensor([ids]), max_new_tokens=given.tokens, do_sample=False)[
                    0, len(ids) :
                ]
            answer = there.answer(ids, given.tokens)
            pairs = zip(answer, wanted.tolist(), strict=False)
            first = next((place for place, (one, other) in enumerate(pairs) if one != other), None)
            same += first is None
            kept += len(answer) if first is None else first
            total += len(answer)
        print(f"{language}  {same} of {len(messages)} answers, {kept / total:.1%} of {total} tokens")  # noqa: T201


if __name__ == "__main__":
    main()
