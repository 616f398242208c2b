"""The words of `dudi eval`: what they are, and what they mean."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from dudi.command import output_folder, words_of
from dudi.errors import ConfigError, did_you_mean
from dudi.evaluation.benchmarks import BENCHMARKS, DEFAULT, LM_EVAL, SEAHELM, Trained, Wanted, check_options
from dudi.program.lm_eval import lm_eval_arguments, options_of

if TYPE_CHECKING:
    from dudi.evaluation.source import Source

FOLDER = Path("evals")
LM_EVAL_SEED = 1234
"""That of lm_eval's own command line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of `dudi eval`."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model's folder, a hub name, package:NAME, or the folder of a run")
    known = ", ".join(BENCHMARKS)
    add(
        "--benchmark", action="append", metavar="NAME|FILE", help=f"{known}, or a file (default: {DEFAULT}); may repeat"
    )
    groups = [parser.add_argument_group(title) for title in ("what is asked", "how it answers", "the model")]
    _seahelm_arguments(parser.add_argument_group(f"SEA-HELM (--benchmark {SEAHELM.name}; docs/seahelm.md)"))
    lm_eval_arguments(parser.add_argument_group(f"lm-evaluation-harness (--benchmark {LM_EVAL.name}; docs/tasks.md)"))
    add("--name", help="what tables call the model (default: from its folder)")
    add("--output", type=output_folder, metavar="DIR", help=f"where the results go (default: {FOLDER}/NAME)")
    add("--force", action="store_true", help="replace another evaluation that is there")
    for group, fill in zip(groups, (_asked_arguments, _answering_arguments, _model_arguments), strict=True):
        fill(group)


def _asked_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--part", metavar="test|validation", help=f"of {DEFAULT} (default: test)")
    add("--languages", nargs="+", metavar="CODE", help="only these languages")
    add("--tasks", nargs="+", metavar="TASK", help="only these tasks")
    add("--per-split", type=int, metavar="N", help="at most N questions of each language and split")
    add("--language", metavar="CODE", help="the language of a file's rows that do not name theirs")
    add("--max-rejected-share", type=float, default=0.05, metavar="X", help="stop at more bad rows (default: 0.05)")


def _answering_arguments(group: argparse._ArgumentGroup) -> None:
    add, batch = group.add_argument, Wanted().batch_size
    served = SEAHELM.name
    add("--temperature", type=float, metavar="T", help=f"of sampling (default: 0, greedy; {served}: the model's own)")
    add("--top-p", type=float, metavar="P", help="sample among the likeliest tokens of this probability")
    add("--top-k", type=int, metavar="K", help="sample among the K likeliest tokens")
    add("--max-new-tokens", type=int, metavar="N", help="longest answer (default: 64; of files 256)")
    add("--seeds", type=int, metavar="N", help="the seeds 0 to N - 1")
    add("--seed", type=int, nargs="+", metavar="SEED", help=f"these seeds (default: 0; {LM_EVAL.name}: {LM_EVAL_SEED})")
    add("--batch-size", type=int, default=batch, metavar="N", help=f"questions at a time (default: {batch})")


def _model_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--revision", help="commit, tag or branch on the hub")
    add("--dtype", default="auto", metavar="auto|float32|...", help="precision of the weights (default: the device's)")
    add("--device", default="auto", help="auto, cpu, cuda:1 ... (default: auto)")
    add("--chat-template", type=Path, metavar="FILE", help="a jinja file instead of the model's own template")
    add("--trust-remote-code", action="store_true", help="run code that the model's repository brings")


def _seahelm_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--seahelm", type=Path, metavar="DIR", help="a checkout of SEA-HELM")
    add("--seahelm-python", type=Path, metavar="PY", help="its interpreter (default: DIR/.venv/bin/python)")
    add("--base-url", metavar="URL", help="the model's server; MODEL is its name for the model. Else vLLM is started")
    add("--server-python", type=Path, metavar="PY", help="the interpreter that has vLLM (default: this one)")
    add("--server-args", default="", metavar="WORDS", help="more words for vLLM, in one string")
    add("--startup-timeout", type=float, default=900.0, metavar="S", help="seconds for vLLM (default: %(default).0f)")
    add(
        "--limit",
        type=_number,
        metavar="N",
        help=f"only so many examples per task: a trial ({LM_EVAL.name}: or a share)",
    )
    add("--skip-tasks", nargs="+", default=[], metavar="TASK", help="leave these out")
    add("--judges", action="store_true", help="also what another language model judges (MT-Bench ...)")
    add("--count-all", action="store_true", help="count cultural and multi-turn tasks in the totals too")
    add("--workers", type=int, default=64, metavar="N", help="requests at a time (default: %(default)s)")


def _number(text: str) -> float:
    return float(text) if "." in text else int(text)


def benchmarks_of(given: argparse.Namespace) -> list[str]:
    """What is asked: names of the registry, and files."""
    return list(dict.fromkeys(given.benchmark or [DEFAULT]))


def wanted_of(given: argparse.Namespace, trained: Trained | None) -> Wanted:
    """What a command line wants of its benchmarks.

    Raises:
        ConfigError: options of a benchmark that is not asked.
    """
    options = options_of(given)
    check_options(benchmarks_of(given), options)
    return Wanted(
        languages=words_of(given.languages),
        tasks=words_of(given.tasks),
        part=given.part,
        per_split=given.per_split,
        language=given.language,
        max_new_tokens=given.max_new_tokens,
        temperature=given.temperature or 0.0,
        top_p=given.top_p,
        top_k=given.top_k,
        batch_size=given.batch_size,
        trained=trained,
        options=options,
    )


def source_of(given: argparse.Namespace) -> Source:
    """The model, with the options that say how it is loaded.

    Raises:
        ConfigError: an unknown precision, or a run without a model.
    """
    from dudi.evaluation import source as sources

    if given.dtype not in sources.DTYPES:
        hint = did_you_mean(given.dtype, sources.DTYPES)
        raise ConfigError(f"--dtype: '{given.dtype}' is not one of {', '.join(sources.DTYPES)}{hint}")
    keys = ("revision", "dtype", "device", "chat_template", "trust_remote_code")
    source = sources.source_of(given.model, **{key: getattr(given, key) for key in keys})
    return source if given.name is None else dataclasses.replace(source, name=given.name)


def seeds_of(given: argparse.Namespace) -> list[int]:
    """The seeds, ascending."""
    usual = LM_EVAL_SEED if benchmarks_of(given) == [LM_EVAL.name] else 0
    return list(range(given.seeds)) if given.seeds is not None else sorted(given.seed or [usual])


def check_numbers(given: argparse.Namespace) -> None:
    """Refuse numbers that make no sense.

    Raises:
        ConfigError: with the option's name.
    """
    if given.seeds is not None and given.seed is not None:
        raise ConfigError("--seeds and --seed: give one of them")
    if given.limit is not None and LM_EVAL.name not in benchmarks_of(given) and given.limit != int(given.limit):
        raise ConfigError(f"--limit must be a whole number, got {given.limit}; a share is for {LM_EVAL.name}")
    shares = {"limit"} if LM_EVAL.name in benchmarks_of(given) else set()
    for name in {"seeds", "per_split", "batch_size", "max_new_tokens", "top_k", "limit"} - shares:
        value = getattr(given, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if not 0 <= given.max_rejected_share <= 1:
        raise ConfigError(f"--max-rejected-share must be between 0 and 1, got {given.max_rejected_share}")
