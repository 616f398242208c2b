"""The demo over several seeds, with controls: is the DuDi student better than what it started from?

    python scripts/demo_seeds.py --seeds 8 --jobs 2

Runs `mini/dudi` as `make demo` does, and beside it, from the same cold start and for as many optimizer steps, continued
SFT and the other methods asked for. Writes `docs/results/demo.md` and `demo.json`. What is finished is not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dudi.comparison.significance import aso
from dudi.evaluation.benchmarks import find
from dudi.evaluation.records import FILE, FLOOR, STUDENT, Evaluation, read_evaluations, write_evaluations
from dudi.evaluation.tables import by_subject, language_name, splits_of
from dudi.files import write_text
from dudi.tables import grid_of, markdown
from dudi.training.runlog import read_jsonl

ARMS: dict[str, list[str]] = {
    "dudi": ["mini/dudi"],
    "sft": ["mini/sft", "cold_start=sft"],
    "gkd": ["mini/gkd"],
    "no_verbalizer": ["mini/dudi", "verbalizer=none"],
}
ASKED = ["benchmark.per_split=null", "benchmark.max_new_tokens=40", "benchmark.batch_size=128"]
"""All questions, which are more than the demo asks, so that a seed's score is less of a draw."""
TITLES = {
    FLOOR: "guessing",
    "base": "base student",
    "cold_start": "cold start",
    "sft": "continued SFT (control)",
    "gkd": "GKD",
    "no_verbalizer": "DuDi without verbalizer",
    "dudi": "DuDi",
    "teacher": "teacher",
}
RIVALS = ("cold_start", "sft", "gkd", "no_verbalizer")


def run(arm: str, seed: int, runs: Path, threads: int) -> Path:
    """One run; returns its folder."""
    folder = runs / f"{arm}-{seed}"
    words = [sys.executable, "-m", "dudi", "train", *ARMS[arm], f"seed={seed}", *ASKED, "--output", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "DUDI_CACHE": str(runs / "cache")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{folder}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return folder


def collected(folders: dict[str, list[Path]]) -> list[Evaluation]:
    """Everybody over the seeds; base and teacher, who are the same in every run, once."""
    found: dict[str, list[Evaluation]] = {}
    for arm, own in folders.items():
        steps = [
            [one for one in read_jsonl(folder / "metrics.jsonl") if one["stage"] != "cold_start"] for folder in own
        ]
        told = {"steps": steps[0][-1]["step"], "training": [sum(one["time/step"] for one in run) for run in steps]}
        for one in (one for folder in own for one in read_evaluations(folder / FILE)):
            if one.subject == STUDENT:
                one = dataclasses.replace(one, name=arm, subject=arm, about={**one.about, **told})
                found.setdefault(arm, []).append(one)
            elif arm == "dudi" and (one.subject == "cold_start" or one.subject not in found):
                found.setdefault(one.subject, []).append(dataclasses.replace(one, name=one.subject))
    return [dataclasses.replace(own[0], runs=tuple(one.runs[0] for one in own)) for own in found.values()]


def page(evaluations: Sequence[Evaluation], command: str, threads: int) -> str:
    """The result as Markdown."""
    there = by_subject(evaluations)
    everybody = {name: there[name] for name in TITLES if name in there}
    dudi, splits = everybody["dudi"], splits_of(*evaluations)
    heads, meanings = (*splits, "all"), find(dudi.benchmark["name"]).meanings
    seeds, versions = len(dudi.runs), dudi.about["versions"]
    times = {arm: statistics.median(everybody[arm].about["training"]) for arm in ARMS if arm in everybody}
    significance = [
        (
            TITLES[rival],
            [f"{aso(values(dudi, *_place(head)), values(everybody[rival], *_place(head))):.3f}" for head in heads],
        )
        for rival in RIVALS
        if rival in everybody
    ]
    shown = [name for name in everybody if name != "base"]
    by_language = [
        (language_name(code), [_mean(everybody[name], "by_language", code) for name in shown])
        for code in dudi.keys("language")
    ]
    return "\n".join(
        [
            f"# The demo over {seeds} seeds",
            "",
            f"    {command}",
            "",
            f"`mini/dudi`, exactly as `make demo` runs it, with seeds 0 to {seeds - 1}; the others start from its "
            f"cold start and take as many optimizer steps ({dudi.about['steps']}). Exact match in percent on "
            f"all {dudi.benchmark['questions']} test questions of `{dudi.benchmark['name']}` on its two tasks (greedy, "
            f"fingerprint `{dudi.benchmark['fingerprint'][:12]}`), mean ± standard deviation over seeds. The base "
            "student and the teacher are the same in every run.",
            "",
            markdown(
                grid_of(heads, [(TITLES[n], [_mean(one, *_place(h)) for h in heads]) for n, one in everybody.items()])
            ),
            "",
            *(f"- *{split}*: {meanings[split]}." for split in splits),
            "",
            "## Is it a difference?",
            "",
            "Almost Stochastic Order (confidence 0.95): eps_min, 0 where DuDi is better in every sense, over 0.5 where "
            f"it is not; {seeds} scores a side. We call a difference significant below 0.2.",
            "",
            markdown(grid_of(heads, significance, corner="DuDi against")),
            "",
            "## By language, all splits",
            "",
            markdown(grid_of([TITLES[name] for name in shown], by_language)),
            "",
            f"Median time of the second stage's steps, {threads} thread(s) a run: "
            f"{', '.join(f'{TITLES[arm]} {time:.0f} s' for arm, time in times.items())}. torch "
            f"{versions['torch'].partition('+')[0]}, transformers {versions['transformers']}.",
            "",
        ]
    )


def _place(split: str) -> tuple[str, ...]:
    return ("overall",) if split == "all" else ("by_split", split)


def values(evaluation: Evaluation, *place: str) -> list[float]:
    """Exact match of each seed, in percent."""
    return [100 * value for value in evaluation.values("exact_match", *place)]


def _mean(evaluation: Evaluation, *place: str) -> str:
    found = values(evaluation, *place)
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
    jobs = [(arm, seed) for arm in arms for seed in range(asked.seeds)]  # a cold start is made by whoever comes first
    with ThreadPoolExecutor(asked.jobs) as pool:
        done = list(pool.map(lambda job: run(*job, asked.runs, asked.threads), jobs))
    folders = {arm: [folder for (own, _), folder in zip(jobs, done, strict=True) if own == arm] for arm in arms}
    found = collected(folders)
    command = f"python scripts/demo_seeds.py --seeds {asked.seeds} --jobs {asked.jobs} --arms {' '.join(arms)}"
    write_evaluations(found, asked.output / "demo.json", a_line_each=True)
    write_text(asked.output / "demo.md", page(found, command, asked.threads))


if __name__ == "__main__":
    main()
