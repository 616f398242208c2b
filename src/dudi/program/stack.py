"""The words of `dudi stack`. No torch here: what runs is imported when it is called."""

from __future__ import annotations

import argparse
from pathlib import Path

from dudi.command import Kinds, Verb, dispatch, late, output_file, output_folder, whole_number
from dudi.errors import ConfigError

RECIPES = {
    "paper": ("connector_start=random", "merge_lora=false"),
    "improved": ("connector_start=least_squares", "merge_lora=true"),
}
"""What `align --recipe` sets: the paper's Stage 1, or the authors' later one."""
TRANSLATION = {"target": "eng_Latn", "beams": 5, "max_new_tokens": 256, "translate_length": 1024}
"""What `eval --translate` is told beside the model, and what it is where it is not."""
STAGES = ("adapt", "align", "teach", "distill", "finetune")


def _stage(name: str, help: str) -> Verb:
    def arguments(parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("recipe", metavar="RECIPE", help="a YAML file, or the name of a shipped recipe")
        add("overrides", nargs="*", metavar="key=value", help="keys that win over the recipe")
        add("--task", type=Path, metavar="DIR", help="rows and labels from a folder of dudi stack prepare")
        add("--dry-run", action="store_true", help="resolve, validate and show; train nothing")
        add("--resume", default="auto", metavar="auto|never|PATH", help="where to go on from (default: auto)")
        add("--output", type=output_folder, metavar="DIR", help="the run's folder")
        if name == "align":
            flavour = "start of the connector, and what becomes of the LoRA"
            add("--recipe", dest="flavour", choices=tuple(RECIPES), help=flavour)
        else:
            add("--recipe", dest="flavour", help=argparse.SUPPRESS)  # to say whose it is

    def run(given: argparse.Namespace) -> int:
        from dudi.config.recipe_files import refuse_other_verbs
        from dudi.stacking.recipe import load_stack_config, read_words
        from dudi.stacking.set_card import task_words

        refuse_other_verbs(given.recipe, stacks=True)
        if name != "align" and given.flavour is not None:
            raise ConfigError(
                "--recipe: belongs to dudi stack align, whose Stage 1 it makes; what goes on from there differs in "
                "train_connector alone: true after 'improved', false after 'paper'"
            )
        flavour = RECIPES[given.flavour] if given.flavour else ()
        task = read_words(name, task_words(given.task, given.overrides)) if given.task is not None else ()
        config = load_stack_config(given.recipe, name, [*flavour, *task, *given.overrides])
        from dudi.program.stack_train import run_stage

        return run_stage(config, dry_run=given.dry_run, resume=given.resume, output=given.output)

    return Verb(help, arguments, run)


def _eval_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.usage = "%(prog)s SYSTEM [SYSTEM ...] ROWS [options]"
    add("systems", nargs="+", metavar="SYSTEM", help="a run of teach, distill or finetune; NAME=RUN,RUN: its seeds")
    add("rows", metavar="ROWS", help="labelled rows: a folder of dudi stack prepare, a file, a pattern, or a hub name")
    add("--source-language", default="eng_Latn", metavar="CODE", help="what was learned in (default: %(default)s)")
    add("--language", metavar="CODE", help="the source language of rows that do not name theirs")
    add("--column", action="append", default=[], metavar="OURS=THEIRS", help="text=premise, pair=hypothesis ...")
    add("--languages", nargs="+", metavar="CODE", help="only these languages")
    add("--translate", metavar="MT_MODEL", help="translate-test: rows are put into English by this model first")
    default = {name: f"(default: {value})" for name, value in TRANSLATION.items()}
    add("--target", metavar="CODE", help=f"what to translate into {default['target']}")
    add("--beams", type=whole_number(1), metavar="N", help=f"beams of the translation {default['beams']}")
    longest, read = default["max_new_tokens"], default["translate_length"]
    add("--max-new-tokens", type=whole_number(1), metavar="N", help=f"longest translation {longest}")
    add("--translate-length", type=whole_number(1), metavar="N", help=f"tokens that it reads {read}")
    _reading_arguments(parser)
    place = "where scores and answers go (default: runs/eval-NAME_OF_ROWS)"
    add("--output", type=output_folder, metavar="DIR", help=place)
    add("--force", action="store_true", help="ask again what the folder holds answers of")
    add("--card", action="store_true", help="put the scores into each run's evaluation.json, report and model card too")


def _reading_arguments(parser: argparse.ArgumentParser) -> None:
    """How rows are read by a model that is there already."""
    add = parser.add_argument
    add("--split", help="split of a folder or on the hub (default: that of the folder's own name, else test)")
    add("--code", action="append", default=[], metavar="OURS=THEIRS", help="id=ind_Latn: its code for ours")
    length = "tokens of a row that are read (default: as in training)"
    add("--max-length", type=whole_number(1), metavar="N", help=length)
    add("--batch-size", type=whole_number(1), default=32, metavar="N", help="rows at a time (default: %(default)s)")
    add("--max-rows", type=whole_number(1), metavar="N", help="at most so many rows of each language")
    add("--device", default="auto", help="auto, cpu, cuda:1 ... (default: auto)")


def _generate_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="RUN_OR_MODEL", help="a run of finetune (task.kind=generation) or of align, its LLM causal")
    add("rows", nargs="?", metavar="ROWS", help="a file, a folder of dudi stack prepare, a pattern, or a hub name")
    add("--prompt", help="what the LLM is asked, behind the text (default: what it was asked in training)")
    add("--text", help="one text, in the place of ROWS")
    add("--language", metavar="CODE", help="of --text, or of rows that do not name theirs")
    add("--column", action="append", default=[], metavar="OURS=THEIRS", help="text=premise, answer=target ...")
    add("--max-new-tokens", type=whole_number(1), default=64, metavar="N", help="longest answer (default: %(default)s)")
    _reading_arguments(parser)
    add("--output", type=output_file, metavar="FILE", help="keep a line of JSON for each row there, and print none")


def _prepare_arguments(parser: argparse.ArgumentParser) -> None:
    from dudi.stacking.task_sets import TASK_SETS

    add = parser.add_argument
    add("set", choices=tuple(TASK_SETS), metavar="SET", help=", ".join(TASK_SETS))
    add("output", type=output_folder, metavar="DIR", help="the folder to write")
    add("--from", dest="place", type=Path, metavar="PATH", help="file or folder that holds the set (default: the hub)")
    add("--train", metavar="PATH|hub", help="English training rows, where --from has none")
    languages = "only these, in the set's codes or NLLB's; all: what NLLB cannot read, too"
    add("--languages", nargs="+", default=[], metavar="CODE", help=languages)
    add("--max-train", type=whole_number(0), metavar="N", help="at most so many training rows")
    add("--revision", metavar="REV", help="commit, tag or branch of the set on the hub")


def _prepare(given: argparse.Namespace) -> int:
    from dudi.command import say, words_of
    from dudi.stacking.prepare import prepare
    from dudi.stacking.set_card import said

    done = prepare(
        given.set, given.output, place=given.place, train=given.train, languages=words_of(given.languages) or (),
        max_train=given.max_train, revision=given.revision,
    )  # fmt: skip
    return say(said(done))


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--seeds", type=whole_number(1), default=1, metavar="N", help="seeds 0 to N-1 (default: %(default)s)")
    attention = ("bidirectional", "causal", "both")
    add("--attention", choices=attention, default=attention[0], help="of the LLM (default: %(default)s)")
    add("--jobs", type=whole_number(1), metavar="N", help="processes of one thread each (default: cores)")
    add("--quick", action="store_true", help="a few steps: to see that it runs, not what it finds")
    place = "where the page goes (default: %(default)s)"
    add("--output", type=output_folder, default=Path("runs/stack-demo"), metavar="DIR", help=place)
    add("--rows", type=output_folder, metavar="DIR", help="only write the rows there, for recipes/stack/mini/")


def stack_verb(words: list[str]) -> int:
    """Run one stage, or ask a stack: what `dudi stack` does with these words; errors as its verbs raise them."""
    return dispatch(words, "dudi stack", STACK.kinds, STACK.help)


_DEMO = late("dudi.program.stack_demo", "run", stack_verb)
_EVAL = late("dudi.program.stack_eval", "run")
_GENERATE = late("dudi.program.stack_generate", "run")
STACK: Kinds = Kinds(
    "an MT encoder under a language model (MT-LLM)",
    {
        "prepare": Verb("a labelled data set in many languages, from the hub or files", _prepare_arguments, _prepare),
        "adapt": _stage("adapt", "let a causal LLM read in both directions (MNTP)"),
        "align": _stage("align", "Stage 1: the stack learns its own LLM's vectors, without labels"),
        "teach": _stage("teach", "tune the LLM alone on the English task, and store its vectors"),
        "distill": _stage("distill", "Stage 2: the stack learns the tuned LLM's vectors"),
        "finetune": _stage("finetune", "tune a stack, or an encoder alone, on labels"),
        "demo": Verb("MT-LLM against its rivals on small models of the package", _demo_arguments, _DEMO),
        "eval": Verb("ask a tuned model about rows in any of its languages", _eval_arguments, _EVAL),
        "generate": Verb("let a causal stack write about texts in its languages", _generate_arguments, _GENERATE),
    },
)
