"""The words of `dudi eval --benchmark lm-eval`: those of lm_eval's own command line, with a dash or an underscore."""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dudi.errors import ConfigError
from dudi.evaluation.benchmarks import LM_EVAL

_OTHERWISE = {
    "--model": "the model is the first word: dudi eval MODEL",
    "--model-args": "the model is the first word: dudi eval MODEL; see --dtype, --revision and --trust-remote-code",
    "--config": "is a file of lm_eval's command line; a recipe of dudi has a section 'benchmark' (docs/eval.md)",
    "--predict-only": "answers are always scored, and each stands in answers.jsonl",
    "--write-out": "every question stands in answers.jsonl; --limit 1 asks one of each task",
    "--show-config": "how a task is asked stands in evaluation.json, under 'about'",
    "--use-cache": "a finished evaluation is kept as a whole, and not run again",
    "--cache-requests": "requests are not kept; a finished evaluation is, and not run again",
    "--check-integrity": "tests lm_eval's own tasks; run it there",
    "--max-batch-size": "nothing is tried out: give --batch-size",
    "--samples": "--limit asks the first questions; single ones cannot be named",
    "--verbosity": "what lm_eval says goes nowhere; --debug shows the traceback of an error",
    "--confirm-run-unsafe-code": "tasks that run code that a model has written are not asked",
    "--metadata": "what a task needs stands in its file: see --include-path",
    **dict.fromkeys(("--wandb-args", "--wandb-config-args", "--trackio-args"), "the results are files, in --output"),
    "--hf-hub-log-args": "the results are files, in --output",
}
"""Words of lm_eval's command line for what dudi does otherwise, or not."""


def lm_eval_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that only lm_eval has, `--limit` aside, which SEA-HELM has too."""
    group = parser.add_argument_group(f"lm-evaluation-harness (--benchmark {LM_EVAL.name}; docs/tasks.md)")
    add = group.add_argument
    add("--num-fewshot", "-f", type=int, metavar="N", help="examples in front of each question (default: the task's)")
    add("--apply-chat-template", action="store_true", default=None, help="prompts go through the chat template")
    add(
        "--fewshot-as-multiturn",
        type=_truth,
        nargs="?",
        const=True,
        metavar="true|false",
        help="examples as turns of the chat (default: true)",
    )
    add("--system-instruction", metavar="TEXT", help="a system turn in front")
    add("--gen-kwargs", action=_Pairs, nargs="+", metavar="KEY=VALUE", help="of generation, over the task's own")
    add("--include-path", type=Path, nargs="+", metavar="DIR", help="folders of task files")
    add("--data", type=Path, metavar="DIR", help="local Parquet files in place of the hub")
    add("--log-samples", "-s", action="store_true", help=argparse.SUPPRESS)  # they always are
    for name in _OTHERWISE:
        add(name, action=_Otherwise, nargs="*", help=argparse.SUPPRESS)


def listed(benchmarks: Sequence[str], tasks: Sequence[str] | None) -> str | None:
    """What `--tasks list` prints: the shipped sets with their languages; None where nobody asks for it."""
    if LM_EVAL.name not in benchmarks or list(tasks or ()) != ["list"]:
        return None
    from dudi.data.task_files import shipped_tasks

    sets: dict[str, list[str]] = {}
    for task in shipped_tasks():
        sets.setdefault(task.family, []).append(task.language)
    lines = [f"{name:<20}{' '.join(codes)}" for name, codes in sets.items()]
    return "\n".join(
        [*lines, "", "also any task, group or tag of lm_eval: lm_eval ls tasks (docs/tasks.md, docs/eval.md)"]
    )


def one_seed(text: str) -> int:
    """A seed; also lm_eval's `0,1234,1234,1234`, of Python, NumPy, torch and the examples, of which dudi has one.

    Raises:
        ArgumentTypeError: no whole number, or the last three differ.
    """
    parts = text.split(",")
    try:
        seeds = [int(part) for part in parts]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text}") from None
    if len(seeds) not in (1, 4) or len(set(seeds[1:])) > 1:
        raise argparse.ArgumentTypeError(
            f"{text}: sampling and examples have one seed; several runs are written --seed {' '.join(parts)}"
        )
    return seeds[-1]


def _truth(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"true or false, got {text}")
    return words[text.lower()]


class _Otherwise(argparse.Action):
    """Says what is written in place of a word of lm_eval's."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        name = self.option_strings[0]
        raise ConfigError(f"{name}: {_OTHERWISE[name]} (see {parser.prog} --help)")


class _Pairs(argparse.Action):
    """`temperature=0,stop=["a","b"]`, `temperature=0 top_p=0.9` or a JSON object, as lm_eval reads them."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        """Add what is given to what was.

        Raises:
            ConfigError: it is of none of these forms.
        """
        found = dict(getattr(namespace, self.dest) or {})
        for word in values:
            found |= _object(word) if word.lstrip().startswith("{") else _pairs(word)
        setattr(namespace, self.dest, found)


def _object(text: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--gen-kwargs: '{text}' is not JSON: {error}") from error
    return found


def _pairs(text: str) -> dict[str, Any]:
    found = {}
    for pair in filter(str.strip, _parts(text)):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--gen-kwargs: '{pair}' is not of the form key=value")
        found[key.strip()] = _value(key.strip(), value.strip())
    return found


def _parts(text: str) -> Sequence[str]:
    """What stands between commas, but not between those inside of brackets and quotation marks."""
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if sign == "," and not depth and not quote:
            parts.append("")
            continue
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        else:
            depth += (sign in "[({") - (sign in "])}")
        parts[-1] += sign
    return parts


def _value(key: str, text: str) -> Any:
    """Numbers, truth values and lists as such, in Python's or JSON's spelling; all else is text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for read in (int, float, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    if text[:1] in ("[", "(", "{", '"', "'"):
        raise ConfigError(f'--gen-kwargs: {key}: {text} is no value; a list is written ["a","b"]')
    return text
