"""The demo over several seeds, with controls: is the DuDi student better than what it started from?

    python scripts/demo_seeds.py --seeds 8 --jobs 2

Runs `mini/dudi` as `make demo` does, and beside it, from the same cold start and for as many optimizer steps, continued
SFT and the other methods asked for. Writes `docs/results/demo.md` and `demo.json`. What is finished is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import transformers
from dudi.evaluation.benchmark import ask, described
from dudi.evaluation.table import MEANING

from dudi.comparison.significance import aso
from dudi.data.chat import chat_format
from dudi.data.cldr.benchmark import SPLITS, Question, questions
from dudi.evaluation.summary import summarise
from dudi.languages.registry import LANGUAGES
from dudi.models.load import load_model, load_tokenizer

MINI = Path(__file__).parents[1] / "src" / "dudi" / "mini"

ARMS: dict[str, list[str]] = {
    "dudi": ["mini/dudi"],
    "sft": ["mini/sft", "cold_start=sft"],
    "gkd": ["mini/gkd"],
    "no_verbalizer": ["mini/dudi", "verbalizer=none"],
}
TITLES = {
    "guessing": "guessing",
    "base": "base student",
    "cold_start": "cold start",
    "sft": "continued SFT (control)",
    "gkd": "GKD",
    "no_verbalizer": "DuDi without verbalizer",
    "dudi": "DuDi",
    "teacher": "teacher",
}
RIVALS = ("cold_start", "sft", "gkd", "no_verbalizer")


def run(arm: str, seed: int, runs: Path, threads: int) -> dict[str, Any]:
    """One run; returns the scores of its cold start and its student, and the seconds that its steps took."""
    folder = runs / f"{arm}-{seed}"
    words = [sys.executable, "-m", "dudi", "train", *ARMS[arm], f"seed={seed}", "benchmark=null"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "DUDI_CACHE": str(runs / "cache")}
    done = subprocess.run(
        [*words, "--output", str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{folder}: exit {done.returncode}\n{done.stderr[-2000:]}")
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    own = [step for step in steps if step["stage"] != "cold_start"]
    scores = {"student": score(folder / "model")}
    if arm == "dudi":
        scores["cold_start"] = score(folder / "stages" / "cold_start" / "model")
    sys.stderr.write(f"{folder}: {scores['student']['overall']['exact_match']:.3f}\n")
    return {"seed": seed, "scores": scores, "steps": own[-1]["step"], "seconds": sum(s["time/step"] for s in own)}


def score(folder: Path) -> dict[str, Any]:
    """A model's scores on every test question of the demo's tasks."""
    name = str(folder)
    chat = chat_format(load_tokenizer(str(MINI / "base")), {}, name)
    answered = ask(name, load_model(name), chat, demo_questions(), max_new_tokens=40, batch_size=128)
    scores: dict[str, Any] = summarise(answered)[name]
    return scores


def demo_questions() -> list[Question]:
    """All of them: more than the demo asks, so that a seed's score is less of a draw."""
    return questions(tasks=("currency", "official_language"))


def collected(results: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Scores by subject, a list over seeds; cold start, base, teacher and floor from the runs of DuDi."""
    found = {arm: [one["scores"]["student"] for one in seeds] for arm, seeds in results.items() if arm in ARMS}
    found["cold_start"] = [one["scores"]["cold_start"] for one in results["dudi"]]
    found |= {name: results[name] for name in ("guessing", "base", "teacher")}
    return {name: found[name] for name in TITLES if name in found}


def values(scores: Sequence[dict[str, Any]], split: str) -> list[float]:
    """Exact match of each seed, in percent; `all` is the overall one."""
    return [100 * (one["overall"] if split == "all" else one["by_split"][split])["exact_match"] for one in scores]


def guessed() -> dict[str, Any]:
    """The floor, on the same questions."""
    model, chat = load_model(str(MINI / "base")), chat_format(load_tokenizer(str(MINI / "base")), {}, "base")
    floor: dict[str, Any] = summarise(ask("base", model, chat, demo_questions(), max_new_tokens=1))["floor"]
    return floor


def split_table(scores: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Mean and standard deviation over seeds, by subject and split."""
    heads = (*SPLITS, "all")
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, own in scores.items():
        lines.append(f"| {TITLES[name]} | {' | '.join(_mean(values(own, split)) for split in heads)} |")
    return lines


def significance_table(scores: dict[str, list[dict[str, Any]]]) -> list[str]:
    """ASO's eps of DuDi against each of the others, by split."""
    heads = (*SPLITS, "all")
    lines = [f"| DuDi against | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for rival in (name for name in RIVALS if name in scores):
        cells = [f"{aso(values(scores['dudi'], split), values(scores[rival], split)):.3f}" for split in heads]
        lines.append(f"| {TITLES[rival]} | {' | '.join(cells)} |")
    return lines


def language_table(scores: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Exact match over all splits, by language."""
    names = [name for name in scores if name != "base"]
    lines = [f"| | {' | '.join(TITLES[name] for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for code in scores["dudi"][0]["by_language"]:
        cells = [_mean([100 * one["by_language"][code]["exact_match"] for one in scores[name]]) for name in names]
        lines.append(f"| {LANGUAGES[code].name} | {' | '.join(cells)} |")
    return lines


def page(results: dict[str, list[dict[str, Any]]], command: str, threads: int) -> str:
    """The result as Markdown."""
    scores, about = collected(results), described(demo_questions(), part="test", max_new_tokens=40)
    seeds = len(results["dudi"])
    seconds = ", ".join(
        f"{TITLES[arm]} {statistics.median(one['seconds'] for one in own):.0f} s"
        for arm, own in results.items()
        if arm in ARMS
    )
    return "\n".join(
        [
            f"# The demo over {seeds} seeds",
            "",
            f"    {command}",
            "",
            f"`mini/dudi`, exactly as `make demo` runs it, with seeds 0 to {seeds - 1}; the others start from its "
            f"cold start and take as many optimizer steps ({results['dudi'][0]['steps']}). Exact match in percent on "
            f"all {about['questions']} test questions of `{about['name']}` on its two tasks (greedy, fingerprint "
            f"`{about['fingerprint'][:12]}`), mean ± standard deviation over seeds. The base student and the teacher "
            "are the same in every run.",
            "",
            *split_table(scores),
            "",
            *(f"- *{split}*: {MEANING[split]}." for split in SPLITS),
            "",
            "## Is it a difference?",
            "",
            "Almost Stochastic Order (confidence 0.95): eps_min, 0 where DuDi is better in every sense, over 0.5 where "
            f"it is not; {seeds} scores a side. We call a difference significant below 0.2.",
            "",
            *significance_table(scores),
            "",
            "## By language, all splits",
            "",
            *language_table(scores),
            "",
            f"Median time of the second stage's steps, {threads} thread(s) a run: {seconds}. torch "
            f"{torch.__version__.partition('+')[0]}, transformers {transformers.__version__}.",
            "",
        ]
    )


def _mean(found: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(found):.1f}" if len(set(found)) > 1 else ""
    return f"{statistics.mean(found):.1f}{spread}"


def main() -> None:
    """Run what is missing, then write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each")
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=["dudi", "sft"])
    parser.add_argument("--runs", type=Path, default=Path("runs/demo-seeds"))
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    asked = parser.parse_args()
    arms = ["dudi", *(arm for arm in asked.arms if arm != "dudi")]
    torch.set_num_threads(1)
    # Seed by seed and DuDi first: the others find its cold start in the cache.
    with ThreadPoolExecutor(asked.jobs) as pool:
        first = list(pool.map(lambda seed: run("dudi", seed, asked.runs, asked.threads), range(asked.seeds)))
        jobs = [(arm, seed) for seed in range(asked.seeds) for arm in arms[1:]]
        rest = list(pool.map(lambda job: run(*job, asked.runs, asked.threads), jobs))
    results = {"dudi": first} | {
        arm: [one for (name, _), one in zip(jobs, rest, strict=True) if name == arm] for arm in arms[1:]
    }
    results |= {"guessing": [guessed()], "base": [score(MINI / "base")], "teacher": [score(MINI / "teacher")]}
    command = f"python scripts/demo_seeds.py --seeds {asked.seeds} --jobs {asked.jobs} --arms {' '.join(arms)}"
    asked.output.mkdir(parents=True, exist_ok=True)
    (asked.output / "demo.md").write_text(page(results, command, asked.threads), encoding="utf-8")
    text = json.dumps({"command": command, "runs": results}, ensure_ascii=False, indent=1)
    (asked.output / "demo.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
