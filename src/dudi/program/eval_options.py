"""The words of `dudi eval`: what they are, and what they mean."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from dudi.command import output_folder, whole_number, words_of
from dudi.errors import ConfigError, did_you_mean
from dudi.evaluation.benchmarks import BENCHMARKS, DEFAULT, SERVED, check_options, find, takers_of
from dudi.evaluation.entry import Trained, Wanted
from dudi.evaluation.records import ANSWERS, FILE
from dudi.program.lm_eval import AUTO, batch_size, check_batch_size, lm_eval_arguments, one_seed
from dudi.program.seahelm_options import seahelm_arguments

if TYPE_CHECKING:
    from dudi.evaluation.source import ModelSource

FOLDER = Path("evals")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of `dudi eval`."""
    add, known = parser.add_argument, ", ".join(BENCHMARKS)
    add("model", nargs="?", metavar="MODEL", help="a model's folder, a hub name, package:NAME, or the folder of a run")
    what = f"{known}, or a file (default: {DEFAULT}); may repeat"
    add("--benchmark", action="append", metavar="NAME|FILE", help=what)
    titles = ("what is asked", "how it answers", "the model")
    asked, answering, model = (parser.add_argument_group(title).add_argument for title in titles)
    seahelm_arguments(parser)
    lm_eval_arguments(parser)
    add("--name", help="what tables call the model (default: from its folder)")
    place = f"where the results go (default: {FOLDER}/NAME)"
    add("--output", "--output-path", "-o", type=_results_folder, metavar="DIR", help=place)
    add("--force", action="store_true", help="replace another evaluation that is there")
    add("--write-out", "-w", action="store_true", help="print the first prompt of each task before it is asked")
    add("--show-config", action="store_true", help="print what was asked and how, in full")

    asked("--part", metavar="test|validation", help=f"of {DEFAULT} (default: test)")
    asked("--languages", nargs="+", metavar="CODE", help="only these languages")
    asked("--tasks", "-t", nargs="+", metavar="TASK", help="only these tasks")
    asked("--per-split", type=whole_number(1), metavar="N", help="at most N questions of each language and split")
    asked("--language", metavar="CODE", help="the language of a file's rows that do not name theirs")
    most = "stop at more bad rows (default: 0.05)"
    asked("--max-rejected-share", type=float, default=0.05, metavar="X", help=most)

    seeds = "; ".join(["0", *(f"{one.name}: {one.seed}" for one in BENCHMARKS.values() if one.seed)])
    drawn = f"of sampling (default: 0, greedy; {SERVED}: the model's own)"
    answering("--temperature", type=float, metavar="T", help=drawn)
    answering("--top-p", type=float, metavar="P", help="sample among the likeliest tokens of this probability")
    answering("--top-k", type=whole_number(1), metavar="K", help="sample among the K likeliest tokens")
    longest = "longest answer (default: 64; of files 256)"
    answering("--max-new-tokens", type=whole_number(1), metavar="N", help=longest)
    answering("--seeds", type=whole_number(1), metavar="N", help="the seeds 0 to N - 1")
    answering("--seed", type=one_seed, nargs="+", metavar="SEED", help=f"these seeds (default: {seeds})")
    size = f"questions at a time (default: {Wanted().batch_size}); auto: fewer where memory runs out"
    answering("--batch-size", "-b", type=batch_size, metavar="N|auto", help=size)

    model("--revision", help="commit, tag or branch on the hub")
    dtype = "precision of the weights (default: the device's)"
    model("--dtype", default="auto", metavar="auto|float32|...", help=dtype)
    model("--device", default="auto", help="auto, cpu, cuda:1 ... (default: auto)")
    model("--chat-template", type=Path, metavar="FILE", help="a jinja file instead of the model's own template")
    model("--trust-remote-code", action="store_true", help="run code that the model's repository brings")
    parser.set_defaults(template_name=None, template_kwargs={})  # of several words of lm_eval's


def _results_folder(word: str) -> Path:
    """The `type` of `--output`: a folder, and not the file that lm_eval also takes."""
    if word.endswith(".json") and not Path(word).is_dir():
        raise argparse.ArgumentTypeError(f"{word}: name a folder, for {FILE} and {ANSWERS}")
    return output_folder(word)


def unread(
    given: argparse.Namespace, read: Collection[str], fill: Callable[[argparse.ArgumentParser], None] = add_arguments
) -> str | None:
    """The first option of those that `fill` adds that says something, and that nobody reads."""
    parser = argparse.ArgumentParser(add_help=False)
    fill(parser)
    usual = vars(parser.parse_args([]))
    said = (name for name in usual if name not in read and getattr(given, name) != usual[name])
    return next((f"--{name.replace('_', '-')}" for name in said), None)


def wanted_of(given: argparse.Namespace, trained: Trained | None) -> Wanted:
    """What a command line wants of its benchmarks."""
    values = {name: getattr(given, name) for one in BENCHMARKS.values() for name in one.options}
    options = {name: value for name, value in values.items() if value is not None}
    check_options(given.benchmark, options)
    usual, most = Wanted().batch_size, given.max_batch_size
    size = most or usual if given.batch_size == AUTO else given.batch_size or usual
    same = ("part", "per_split", "language", "max_new_tokens", "top_p", "top_k")
    return Wanted(
        languages=words_of(given.languages),
        tasks=words_of(given.tasks),
        temperature=given.temperature or 0.0,
        batch_size=min(size, most or size),
        trained=trained,
        options=options,
        **{name: getattr(given, name) for name in same},
    )


def source_of(given: argparse.Namespace) -> ModelSource:
    """The model, with the options that say how it is loaded."""
    from dudi.evaluation import source as sources

    if given.dtype not in sources.DTYPES:
        hint = did_you_mean(given.dtype, sources.DTYPES)
        raise ConfigError(f"--dtype: '{given.dtype}' is not one of {', '.join(sources.DTYPES)}{hint}")
    keys = ("revision", "dtype", "device", "chat_template", "template_name", "trust_remote_code")
    source = sources.source_of(given.model, **{key: getattr(given, key) for key in keys})
    source = dataclasses.replace(source, template_kwargs={**source.template_kwargs, **given.template_kwargs})
    return source if given.name is None else dataclasses.replace(source, name=given.name)


def seeds_of(given: argparse.Namespace) -> list[int]:
    """The seeds, ascending."""
    usual = find(given.benchmark[0]).seed if len(given.benchmark) == 1 else 0
    return list(range(given.seeds)) if given.seeds is not None else sorted(given.seed or [usual])


def check_numbers(given: argparse.Namespace) -> None:
    """Refuse numbers that make no sense."""
    if given.seeds is not None and given.seed is not None:
        raise ConfigError("--seeds and --seed: give one of them")
    check_batch_size(given.batch_size, given.benchmark)
    if given.limit is not None and not any("limit" in find(name).options for name in given.benchmark):
        if given.limit != int(given.limit):
            raise ConfigError(f"--limit must be a whole number, got {given.limit}; a share is for {takers_of('limit')}")
        if given.limit < 1:
            raise ConfigError(f"--limit must be at least 1, got {given.limit}")
    if not 0 <= given.max_rejected_share <= 1:
        raise ConfigError(f"--max-rejected-share must be between 0 and 1, got {given.max_rejected_share}")
