"""The verbs: each one's words, and the function that it calls.

Each verb imports what it calls when it is called, so that `dudi --help` and `dudi ls` answer without torch.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from dudi.command import Kinds, Verb, dispatch, guarded, late, output_file, output_folder, say, whole_number, words_of
from dudi.errors import ConfigError, did_you_mean
from dudi.objective.methods import Divergence, MethodName, VerbalizerMode
from dudi.program.stack import STACK, STAGES, stack_verb

Words = dict[str, Any]
"""What `add_argument` takes beside an option's name."""
ABOUT = "Distil a large multilingual language model into a small one."
STUDY = "dudi.program.study"
PREPARE = "dudi.program.prepare"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `dudi` with some words; with those of the process where there are none.

    Returns:
        The exit code: 0 done, 1 environment, 2 usage or config, 3 data, 4 numbers, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    os.environ.setdefault("TQDM_DISABLE", "1")  # the libraries' bars; read once, when tqdm is imported
    return guarded(lambda: _run([word for word in words if word != "--debug"]), debug)


def _run(words: list[str]) -> int:
    if words[:1] != ["--version"]:
        return dispatch(words, "dudi", VERBS, ABOUT)
    import importlib.metadata

    try:
        return say(f"dudi {importlib.metadata.version('dudi')}")
    except importlib.metadata.PackageNotFoundError:
        return say("dudi (running from a checkout, not installed)")


# --- training


_OVERRIDES: Words = {"nargs": "*", "metavar": "key=value", "help": "keys that win over the recipe (docs/config.md)"}
_RECIPE: Words = {"metavar": "RECIPE", "help": "a YAML file, or the name of a shipped recipe"}
_RUN_FOLDER: Words = {"type": output_folder, "metavar": "DIR", "help": "the run's folder"}


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("recipe", **_RECIPE)
    add("overrides", **_OVERRIDES)
    add("--dry-run", action="store_true", help="resolve, validate and show; train nothing")
    add("--resume", default="auto", metavar="auto|never|PATH", help="where to go on from (default: auto)")
    what = "go on although this differs from the checkpoint: data, seed, world_size ... (the refusal names them)"
    add("--allow-changed", action="append", default=[], metavar="KEY", help=what)
    add("--output", **_RUN_FOLDER)


def _quickstart_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--method", help="which method follows the cold start (default: dudi)")
    parser.add_argument("overrides", **_OVERRIDES)
    parser.add_argument("--output", **_RUN_FOLDER)


def _quickstart(given: argparse.Namespace) -> int:
    from dudi.program.quickstart import quickstart

    method = [f"method={given.method}"] if given.method else []
    return quickstart(overrides=[*method, *given.overrides], output=given.output)


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("recipe", **_RECIPE)
    add("overrides", **_OVERRIDES)
    add("--gpu", help="plan for this GPU: T4, A100-80, H100 ...")
    add("--gpus", type=whole_number(1), default=1, metavar="N", help="how many of them (default: 1)")
    add("--stage", choices=STAGES, help="of a recipe of `dudi stack`: which stage")


def _plan(given: argparse.Namespace) -> int:
    from dudi.environment import quiet_libraries

    quiet_libraries()
    if given.stage is not None:
        from dudi.stacking.planning import plan_stage
        from dudi.stacking.recipe import load_stack_config

        stage = load_stack_config(given.recipe, given.stage, given.overrides)
        return say(plan_stage(stage, gpu=given.gpu, gpus=given.gpus).text())
    from dudi.distill.recipe import load_named
    from dudi.plan import plan_run, render

    return say(render(plan_run(load_named(given.recipe, given.overrides), gpu=given.gpu, gpus=given.gpus)))


def _verb(help: str, module: str, arguments: str = "add_arguments", run: str = "run", words: str = "") -> Verb:
    """A verb whose work (and words, unless they stand in another) stand in a module, imported when it is asked for."""
    return Verb(help, late(words or module, arguments), late(module, run))


# --- data


_LANGUAGES: Words = {"nargs": "+", "metavar": "CODE", "help": "only these languages"}


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    add, language = parser.add_argument, parser.add_mutually_exclusive_group()
    add("input", type=Path, metavar="INPUT", help="alpaca or sharegpt as JSON or JSONL, or a CSV file")
    add("output", type=output_file, metavar="OUTPUT", help="the JSONL or Parquet file to write")
    add("--format", default="auto", metavar="auto|alpaca|sharegpt|csv|rows", help="default: auto")
    language.add_argument("--language", metavar="CODE", help="the language of every row")
    language.add_argument("--detect-language", action="store_true", help="find out each row's language")
    add("--languages", **_LANGUAGES)
    add("--quotes", choices=["yes", "no"], help="whether a CSV file quotes its cells (default: found out)")


def _convert(given: argparse.Namespace) -> int:
    from dudi.data.convert import convert

    result = convert(
        given.input,
        given.output,
        format=given.format,
        language=given.language,
        detect_language=given.detect_language,
        languages=words_of(given.languages),
        quoted=None if given.quotes is None else given.quotes == "yes",
    )
    return say(str(result))


def _sea_instruct_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("sources", nargs="*", metavar="SOURCE", help="Parquet files or folders; default: the hub's dataset")
    file = Path("data/sea-instruct.parquet")
    add("--output", type=output_file, default=file, metavar="FILE", help="default: %(default)s")
    add("--per-language", type=int, default=4000, metavar="N", help="rows of each (default: 4000)")
    add("--seed", type=int, default=0, help="seed of the sample (default: 0)")
    add("--exclude-sources", nargs="+", metavar="NAME", help="leave out these source datasets")
    add("--languages", **_LANGUAGES)


def _sea_instruct(given: argparse.Namespace) -> int:
    from dudi.data.sea.prepare import prepare_sea_instruct

    card = prepare_sea_instruct(
        given.sources,
        given.output,
        per_language=given.per_language,
        seed=given.seed,
        languages=words_of(given.languages),
        exclude_sources=given.exclude_sources,
    )
    return say(f"{card['text']}\n{given.output}")


def _cldr_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--output", type=output_file, default=Path("data/cldr.jsonl"), metavar="FILE", help="default: %(default)s")
    add("--rows-per-language", type=int, default=200, metavar="N", help="default: 200")
    add("--seed", type=int, default=0, help="seed of the choice (default: 0)")
    add("--languages", **_LANGUAGES)


def _cldr(given: argparse.Namespace) -> int:
    from dudi.data.cldr import prepare_cldr
    from dudi.languages.registry import LANGUAGES

    languages = words_of(given.languages) or list(LANGUAGES)
    prepare_cldr(given.output, languages, given.rows_per_language, given.seed)
    return say(str(given.output))


# --- looking around


def _ls_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="|".join(LISTS), help="what to list, one name a line")


def _ls(given: argparse.Namespace) -> int:
    if given.what not in LISTS:
        raise ConfigError(f"dudi ls: '{given.what}' is not one of {', '.join(LISTS)}{did_you_mean(given.what, LISTS)}")
    return say("\n".join(LISTS[given.what]()))


def _languages() -> Iterable[str]:
    from dudi.languages.registry import load_languages

    return load_languages()


def _recipes() -> Iterable[str]:
    from dudi.config.recipe_files import list_recipes

    return [*list_recipes(), *list_recipes(stacks=True)]


def _env_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print what env.json holds")


def _env(given: argparse.Namespace) -> int:
    import json

    from dudi.environment import collect_environment, describe_environment

    environment = collect_environment()
    return say(json.dumps(environment, indent=2) if given.json else describe_environment(environment))


LISTS: dict[str, Callable[[], Iterable[str]]] = {
    "methods": lambda: get_args(MethodName),
    "verbalizers": lambda: get_args(VerbalizerMode),
    "divergences": lambda: get_args(Divergence),
    "languages": _languages,
    "recipes": _recipes,
}

VERBS: dict[str, Verb | Kinds] = {
    "quickstart": Verb("a small run from start to end on this computer, offline", _quickstart_arguments, _quickstart),
    "prepare": Kinds(
        "bring data into the form that training reads",
        {
            "convert": Verb("alpaca, sharegpt or CSV into rows", _convert_arguments, _convert),
            "sea-instruct": Verb("a stratified sample of SEA-Instruct-2602", _sea_instruct_arguments, _sea_instruct),
            "cldr": Verb("instruction rows made from CLDR, in eight languages", _cldr_arguments, _cldr),
            "task": _verb("rows from a task file of lm-evaluation-harness", PREPARE, "task_arguments", "task"),
            "parallel": _verb("translation rows from parallel text", PREPARE, "parallel_arguments", "parallel"),
        },
    ),
    "train": Verb("train a student as a recipe says", _train_arguments, late("dudi.program.train", "run")),
    "plan": Verb("memory, FLOPs and hours of a recipe, from the models' configs alone", _plan_arguments, _plan),
    "eval": _verb(
        "ask a model a benchmark's questions, over one or several seeds",
        "dudi.program.eval",
        words="dudi.program.eval_options",
    ),
    "compare": _verb("put evaluations side by side, with a test of each lead", "dudi.program.compare"),
    "export": _verb("a trained model as one GGUF file, for llama.cpp", "dudi.program.export"),
    "report": _verb("an HTML report of one or several runs", "dudi.program.report"),
    "study": Kinds(
        "grids of runs: the paper's tables in miniature",
        {
            "run": Verb(
                "run what is missing, and write the page",
                late(STUDY, "run_arguments"),
                late(STUDY, "run_studies", stack_verb),
            ),
            "report": _verb("write the page from what has been run", STUDY, "report_arguments", "report"),
        },
    ),
    "stack": STACK,
    "ls": Verb("list methods, verbalizers, divergences, languages or recipes", _ls_arguments, _ls),
    "env": Verb("versions, device, precision, memory and disk", _env_arguments, _env),
}
