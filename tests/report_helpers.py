"""Builders for tests of the report: run directories, whole or broken, and what a browser would see of a page."""

import itertools
import json
import math
from html.parser import HTMLParser

from dudi.report import write_report

RESOLVED = """\
# Every value of this run and where it came from. This file is a recipe: dudi train resolved.yaml
student:
  model: Qwen/Qwen2.5-0.5B  # recipe recipes/base.yaml:3
  keep_layers: null  # default
teacher:
  model: Qwen/Qwen2.5-3B-Instruct  # recipe recipes/base.yaml:5
lora: null  # default

# The method and its training
method: {method}  # recipe recipes/dudi.yaml:2
lambda: 0.5  # method
languages: [id, th]  # command line
run_name: 'a # b'  # command line
seed: {seed}  # command line
"""
COMMAND = ["dudi", "train", "dudi", "--output", "a folder/run"]
TEXTS = {"id": "Tokyo adalah ibu kota Jepang.", "th": "โตเกียวคือเมืองหลวง", "my": "တိုကျိုသည် မြို့တော်ဖြစ်သည်။"}


def metrics(method="dudi", steps=30, cold=5):
    for step in range(1, cold + 1):
        yield {"stage": "cold_start", "step": step, "loss": 3.0 / step, "time/step": 1.0}
    for step in range(1, steps + 1):
        fade = math.exp(-step / 10)
        yield {
            "stage": method,
            "step": step,
            "loss": 1 + fade,
            "loss/sequence": 0.693 * fade,
            "loss/off_policy": fade,
            "loss/on_policy": 2 * fade,
            "overlap@8": 0.8 - fade / 4,
            "student_entropy": 2.0,
            "teacher_entropy": 1.5,
            "rollout/mean_length": 100 + step,
            "rollout/eos_rate": 0.9,
            "rollout/wrong_language_rate": 0.25,
            "time/rollout": 3.0,
            "time/teacher": 1.0,
            "time/reference": 0.5,
            "time/student": 1.5,
            "time/step": 7.0,
            "tokens_per_second": 1234.0,
            "memory/peak": 3 * 2**30,
            "grad_norm": 1.0,
            "learning_rate": 2e-5,
        }


def sample(language="th", **changes):
    return {
        "stage": "dudi",
        "step": 3,
        "kind": "verbalized",
        "id": "row-1",
        "language": language,
        "target_language": "id",
        "detected_language": "id",
        "prompt": "question",
        "rollout": "answer",
        "gold": TEXTS.get(language, "gold"),
        "ended": True,
    } | changes


def lines(records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def build_run(folder, *, method="dudi", records=None, samples=None, without=(), more="", seed=0, command=COMMAND):
    """A run directory; `more` are further lines of resolved.yaml."""
    (folder / "model").mkdir(parents=True)
    environment = {
        "python": "3.11.9",
        "packages": {"dudi": "0.1.0", "torch": "2.13.0", "vllm": None},
        "commit": "0123abc",
        "device": {"type": "cuda", "count": 8, "names": ["NVIDIA H200"]},
        "precision": {"dtype": "bfloat16", "reason": "the device has it"},
        "memory": 2**34,
        **({} if command is None else {"command": command}),
    }
    files = {
        "resolved.yaml": RESOLVED.format(method=method, seed=seed) + more,
        "env.json": json.dumps(environment),
        "data.json": json.dumps({"source": "rows.jsonl", "fingerprint": "ab" * 32, "rows": {"th": 3, "id": 4}}),
        "metrics.jsonl": lines(metrics(method) if records is None else records),
        "samples.jsonl": lines([sample(code) for code in TEXTS] if samples is None else samples),
    }
    for file, text in files.items():
        if file not in without:
            (folder / file).write_text(text, encoding="utf-8")
    return folder


HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7*7 }}",
    "]]>",
]

SPLITS = ("seen", "transfer", "unseen")
SHARES = {"floor": 0.09, "base": 0.0, "cold_start": 0.18, "student": 0.31, "teacher": 0.7}
ASKED = {
    "name": "cldr-qa-1",
    "part": "test",
    "questions": 36,
    "languages": ["id", "my"],
    "tasks": ["currency"],
    "fingerprint": "0123456789abcdef" * 4,
    "decoding": {"temperature": 0.0, "max_new_tokens": 40},
    "cldr_version": "47",
    "babel_version": "2.18.0",
}


def leaf(share, subject, questions=36):
    """Guessing has no more than a share."""
    rest = {"chrf": 100 * share, "in_language": 0.5, "bits_per_byte": 1 - share}
    return {"questions": questions, "exact_match": share} | (dict.fromkeys(rest) if subject == "floor" else rest)


def scores_of(subject, share):
    by_split = {split: leaf(max(share - place / 100, 0.0), subject, 12) for place, split in enumerate(SPLITS)}
    by_language = {"my": leaf(share / 2, subject, 18), "id": leaf(share, subject, 18)}
    return {
        "overall": leaf(share, subject),
        "by_split": by_split,
        "by_language": by_language,
        "by_language_and_split": dict.fromkeys(by_language, by_split),
    }


def answer(subject, name, split, language="id", *, exact, **changes):
    return {
        "subject": subject,
        "id": name,
        "language": language,
        "split": split,
        "question": f"question {name}",
        "reference": f"reference {name}",
        "answer": f"{subject} says {name}",
        "exact": exact,
    } | changes


def four_kinds(language, each=4):
    """Answers to `each` questions of each change, splits in turn."""
    for kind, (before, after) in enumerate(itertools.product((False, True), repeat=2)):
        for place in range(each):
            name, split = f"{language}-{kind}-{place}", SPLITS[place % 3]
            for subject, exact in (("base", False), ("cold_start", before), ("student", after), ("teacher", True)):
                yield answer(subject, name, split, language, exact=exact)


def told(subject, share, shares, asked, method):
    """An evaluation of a run as JSON has it."""
    guessing = {"guessing": scores_of("floor", shares["floor"])} if "floor" in shares else {}
    return {
        "name": method if subject == "student" else subject.replace("_", " "),
        "model": subject,
        "benchmark": asked,
        "runs": [{"seed": 0, "scores": scores_of(subject, share)}],
        "about": {"method": method, **guessing},
        "subject": subject,
    }


def build_asked(folder, *, asked=None, shares=SHARES, records=None, without=(), method="dudi", **options):
    """A run directory with a benchmark."""
    section = "benchmark:\n  name: cldr-qa-1  # default\n"
    build_run(folder, method=method, more=options.pop("more", "") + section, **options)
    result = {
        "format": "dudi-evaluation-2",
        "evaluations": [
            told(subject, share, shares, ASKED | (asked or {}), method)
            for subject, share in shares.items()
            if subject != "floor"
        ],
    }
    given = [one for code in ("my", "id") for one in four_kinds(code)] if records is None else records
    files = {"evaluation.json": json.dumps(result), "answers.jsonl": lines(given)}
    for file, text in files.items():
        if file not in without:
            (folder / file).write_text(text, encoding="utf-8")
    return folder


class Page(HTMLParser):
    """What a browser would see: elements, texts, and whether every element was closed."""

    VOID = frozenset({"meta", "link", "img", "br", "input", "hr"})
    OPEN_END = frozenset({"p", "option"})

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" not in self.open and "style" not in self.open:
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def page_of(*folders, output=None):
    return Page(write_report(folders, output).read_text(encoding="utf-8"))
