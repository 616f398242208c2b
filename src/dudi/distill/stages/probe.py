"""The probe: how good the teacher's answers are in each language, beside the student's, before anything is distilled.

On held-out rows both answer greedily, and the answers are held against the ground truth. A language's share of the
teacher is w = sigmoid(q / tau): q is the mean difference of the two scores, tau its standard error. A teacher that is
clearly worse is left out, one as good as the student counts half. Likelihood and entropy do not tell a weak teacher:
confident ones are wrong as often (TGOPD, arXiv 2609.02998).
"""

from __future__ import annotations

import json
import math
import statistics
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from sacrebleu.metrics import CHRF

from dudi.data.chat import ChatFormat, Tokens
from dudi.data.examples import Example, ExampleSet
from dudi.data.rows import Message
from dudi.distill.engines import student_engine, teacher_engine
from dudi.distill.stages.answers import answers_of
from dudi.distill.stages.cache import hash_of, seal_stage, stands, teacher_hash
from dudi.distill.state import Run
from dudi.distill.teachers import NOT_ASKED
from dudi.files import write_json_inside
from dudi.rollouts import Engine
from dudi.training import checkpoints

PROBE = "probe"
FILE = "probe.json"


def probe_teacher(run: Run, held_out: ExampleSet) -> dict[str, dict[str, Any]]:
    """What the probe found on held-out rows, by language; read from the run's folder where it stands there.

    Returns:
        For each language of the rows: `rows`, `teacher` and `student` (mean scores between 0 and 1), `error` (the
        standard error of their difference), and `weight`; of several teachers `teacher_name`, who was asked.
    """
    about = {
        "rows": held_out.digest,
        "student": checkpoints.hash_parameters(run.model()),
        "teacher": teacher_hash(run),
        "templates": [run.setup.student_format.digest, run.setup.teacher_format.digest],
        "max_new_tokens": run.args.max_new_tokens,
    }
    if run.args.probe_examples:
        about["examples"] = run.args.probe_examples
    if run.setup.teachers.several:
        about["route"] = run.args.teacher_route
    key = hash_of(about)
    folder = run.args.folder / "stages" / PROBE
    if not stands(folder, key):
        found = _probe(run, held_out.examples)
        seal_stage(run, folder, key, lambda partial: write_json_inside(partial / FILE, found))
    loaded: dict[str, dict[str, Any]] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return loaded


def _probe(run: Run, rows: Sequence[Example]) -> dict[str, dict[str, Any]]:
    """Ask everybody, and weigh: each language against the teacher that it is given to, or against the best of them."""
    teachers, setup, examples = run.setup.teachers, run.setup, run.args.probe_examples
    languages = [row.row.language for row in rows]
    student = _scores(run, student_engine(run, 0.0), setup.student_format, [row.prompt for row in rows], rows)
    given = [teachers.of(row.row, row.row.language) for row in rows]
    scores: dict[str, dict[int, float]] = {}
    for name, one in teachers.members.items():
        own = [place for place in range(len(rows)) if run.args.teacher_route == "auto" or given[place] is one]
        asked = [rows[place] for place in own]
        prompts: list[Tokens] = [
            one.chat.prompt_ids(_with_examples(row, rows, examples)) if examples else teachers.prompt(one, row)
            for row in asked
        ]
        found = _scores(run, teacher_engine(run, one, 0.0), one.chat, prompts, asked)
        scores[name] = dict(zip(own, found, strict=True))
    if run.args.teacher_route != "auto":
        joined = {place: own for of_one in scores.values() for place, own in of_one.items()}
        weighed = weigh(languages, [joined[place] for place in range(len(rows))], student)
        for language, result in weighed.items() if teachers.several else ():
            judges = {one.name for one, code in zip(given, languages, strict=True) if one and code == language}
            result["teacher_name"] = ", ".join(sorted(judges))
        return weighed
    return best_of(languages, {name: list(of_one.values()) for name, of_one in scores.items()}, student)


def _with_examples(asked: Example, rows: Sequence[Example], count: int) -> list[Message]:
    """A row's prompt behind the next rows of its language, answered; its own system turn stays the first."""
    own = [row for row in rows if row.row.language == asked.row.language]
    place = own.index(asked)
    behind = [*own[place + 1 :], *own[:place]][:count]
    system = [turn for turn in asked.row.prompt if turn["role"] == "system"]
    turns: list[Message] = []
    for row in behind:
        turns += [turn for turn in row.row.prompt if turn["role"] != "system"]
        turns.append({"role": "assistant", "content": row.row.completion})
    return [*system, *turns, *(turn for turn in asked.row.prompt if turn["role"] != "system")]


def best_of(
    languages: Sequence[str], teachers: Mapping[str, Sequence[float]], student: Sequence[float]
) -> dict[str, dict[str, Any]]:
    """The best teacher of each language, by its mean score; the first of several that are alike.

    Returns:
        As `weigh`, with the `teacher_name` of each language, and all mean scores and shares (`teachers`, `weights`).
    """
    weighed = {name: weigh(languages, scores, student) for name, scores in teachers.items()}
    found = {}
    for language in sorted(set(languages)):
        means = {name: own[language]["teacher"] for name, own in weighed.items()}
        best = max(means, key=lambda name: means[name])
        shares = {name: own[language]["weight"] for name, own in weighed.items()}
        found[language] = {**weighed[best][language], "teacher_name": best, "teachers": means, "weights": shares}
    return found


def _scores(
    run: Run, engine: Engine, chat: ChatFormat, prompts: Sequence[Tokens], rows: Sequence[Example]
) -> list[float]:
    answers = answers_of(run, [engine] * len(rows), prompts, rows, PROBE, 0)
    return [score(chat.text(answer.ids), row.row.completion) for answer, row in zip(answers, rows, strict=True)]


def score(answer: str, gold: str) -> float:
    """The mean of exact match and chrF (as a share) of one answer, both in the same normal form."""
    ours, theirs = (unicodedata.normalize("NFC", text).strip() for text in (answer, gold))
    chrf = CHRF().sentence_score(ours, [theirs]).score / 100
    return (float(ours == theirs) + chrf) / 2


def weigh(languages: Sequence[str], teacher: Sequence[float], student: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Shares of the teacher from the scores of single rows, each between 0 and 1, and the rows' languages."""
    found: dict[str, dict[str, Any]] = {}
    for language in sorted(set(languages)):
        scores = zip(languages, teacher, student, strict=True)
        pairs = [(one, other) for code, one, other in scores if code == language]
        theirs, own = zip(*pairs, strict=True)
        gaps = [one - other for one, other in pairs]
        spread = statistics.stdev(gaps) if len(gaps) > 1 else 1.0
        # Rows that all differ alike do not make the error zero: it is at least that of one row.
        error = max(spread, 1 / len(gaps)) / math.sqrt(len(gaps))
        ratio = statistics.fmean(gaps) / error
        power = math.exp(-abs(ratio))
        found[language] = {
            "rows": len(pairs),
            "teacher": statistics.fmean(theirs),
            "student": statistics.fmean(own),
            "error": error,
            "weight": (1 if ratio >= 0 else power) / (1 + power),  # a sigmoid, also far from zero
        }
    return found


def describe_probe(found: Mapping[str, Mapping[str, Any]], not_asked: Sequence[str]) -> str:
    """What `probe_teacher` found as lines for a person, and the languages of the run in which it had no row."""
    lines = ["teacher_weight: auto, from held-out rows (exact match and chrF, their mean):"]
    lines += [
        f"  {language}: {_named(one)}, student {one['student']:.3f} (error of the difference "
        f"{one['error']:.3f}, {one['rows']} rows) -> {one['weight']:.2f}"
        for language, one in found.items()
    ]
    if not_asked:
        lines.append(f"  {', '.join(not_asked)}: no row was asked -> {NOT_ASKED:.2f}")
    return "\n".join(lines)


def _named(one: Mapping[str, Any]) -> str:
    """The teacher's score, of several with its name; where all were asked what the others reached, too."""
    name = f"{one['teacher_name']} " if "teacher_name" in one else ""
    others = [f"{other} {mean:.3f}" for other, mean in one.get("teachers", {}).items() if other != one["teacher_name"]]
    return f"teacher {name}{one['teacher']:.3f}" + (f" ({', '.join(others)})" if others else "")
