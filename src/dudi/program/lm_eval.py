"""The words of `dudi eval --benchmark lm-eval`: those of lm_eval's own command line, with a dash or an underscore."""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.command import whole_number
from dudi.config.yaml_tree import read_yaml
from dudi.errors import ConfigError, did_you_mean
from dudi.evaluation.benchmarks import LM_EVAL

AUTO = "auto"
"""As a batch size."""
_LOADED = ("hf", "hf-auto", "huggingface")
"""What lm_eval calls a model that transformers loads."""
_MODEL_ARGS = ("revision", "dtype", "device", "trust_remote_code", "batch_size", "max_batch_size")
"""Of `--model-args`, those that are options of dudi's under the same name."""
_USUAL = {"dtype": AUTO, "device": AUTO}
"""What options are where nobody gives them; else None or false."""
_OTHERWISE = {
    ("--predict-only", "-x"): "answers are always scored, and each stands in answers.jsonl",
    ("--use-cache", "-c"): "single answers are not kept; a finished evaluation is, and is not run again",
    ("--cache-requests",): "requests are not kept; a finished evaluation is, and is not run again",
    ("--check-integrity",): "every question is put through its templates before a model is loaded; leave it out",
    ("--verbosity", "-v"): "what lm_eval says goes nowhere; --debug shows the traceback of an error",
    ("--confirm-run-unsafe-code",): "tasks that run code that a model has written are not asked; see lm_eval run",
    ("--wandb-args",): "the results are files, in --output",
    ("--wandb-config-args",): "the results are files, in --output",
    ("--trackio-args",): "the results are files, in --output",
    ("--hf-hub-log-args",): "the results are files, in --output; hf upload puts them on the hub",
}
"""Words of lm_eval's command line that dudi does not take, and what is there instead."""


def lm_eval_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that only lm_eval has, `--limit` aside, which SEA-HELM has too."""
    group = parser.add_argument_group(f"lm-evaluation-harness (--benchmark {LM_EVAL.name}; docs/tasks.md)")
    add = group.add_argument
    add("--num-fewshot", "-f", type=int, metavar="N", help="examples in front of each question (default: the task's)")
    template = "prompts go through the chat template (of several, the one that is called NAME)"
    add("--apply-chat-template", nargs="?", const=True, metavar="NAME", help=template)
    turns = "examples as turns of the chat (default: true)"
    add("--fewshot-as-multiturn", type=_truth, nargs="?", const=True, metavar="true|false", help=turns)
    add("--system-instruction", metavar="TEXT", help="a system turn in front")
    add("--gen-kwargs", action=_Pairs, nargs="+", metavar="KEY=VALUE", help="of generation, over the task's own")
    add("--include-path", type=Path, nargs="+", metavar="DIR", help="folders of task files and groups")
    add("--data", type=Path, metavar="DIR", help="local Parquet files in place of the hub")
    samples = "the numbers of the questions that are asked: '{\"dudi_sib200_th\": [0, 3]}', or a file with that"
    add("--samples", "-E", type=_numbers, metavar="JSON|FILE", help=samples)
    add("--metadata", action=_Pairs, nargs="+", metavar="KEY=VALUE", help="what tasks are told over their own metadata")
    add("--log-samples", "-s", action="store_true", help="(always so: answers.jsonl)")
    file = "options in lm_eval's YAML; those of the command line win"
    add("--config", "-C", action=_Config, metavar="FILE", help=file)
    add("--model", "-M", dest="backend", metavar="hf", help="(hf, which is the only one)")
    pairs = "pretrained=MODEL in place of MODEL, peft=ADAPTER, revision, dtype ..."
    add("--model-args", "-a", action=_Pairs, nargs="+", metavar="KEY=VALUE", help=pairs)
    add("--max-batch-size", type=whole_number(1), metavar="N", help="where --batch-size auto starts (default: 64)")
    for names in _OTHERWISE:
        add(*names, action=_Otherwise, nargs="*", help=argparse.SUPPRESS)


def settle_model(given: argparse.Namespace) -> None:
    """Put what `--model`, `--model-args` and a template's name say where dudi's own words say it."""
    if given.backend not in (None, *_LOADED):
        raise ConfigError(f"--model {given.backend}: dudi loads a model with transformers, which is --model hf")
    if isinstance(given.apply_chat_template, str):
        if given.model is None and not given.model_args:  # `--apply-chat-template MODEL`
            given.model = given.apply_chat_template
        else:
            given.template_name = given.apply_chat_template
        given.apply_chat_template = True
    args = dict(given.model_args or {})
    pretrained, adapter, file = (args.pop(name, None) for name in ("pretrained", "peft", "gguf_file"))
    for name in [name for name in _MODEL_ARGS if name in args]:
        _set_once(given, name, args.pop(name))
    given.template_kwargs = dict(args.pop("chat_template_args", None) or {})
    if "enable_thinking" in args:
        given.template_kwargs["enable_thinking"] = args.pop("enable_thinking")
    if args:
        known = ("pretrained", "peft", "gguf_file", *_MODEL_ARGS, "chat_template_args", "enable_thinking")
        name = next(iter(args))
        hint = did_you_mean(name, known) or f"; there is {', '.join(known)}"
        raise ConfigError(f"--model-args: dudi has no '{name}'{hint}")
    named = adapter or (f"{pretrained}/{file}" if pretrained and file else pretrained)
    if named is not None:
        _set_once(given, "model", str(named))
    if adapter is not None and pretrained is not None:
        from dudi.evaluation.source import base_of

        base = base_of(str(adapter))
        if base not in (None, str(pretrained)) and Path(str(base)).resolve() != Path(str(pretrained)).resolve():
            raise ConfigError(f"--model-args: {adapter} was trained for {base}, and pretrained is {pretrained}")
    if given.model is None:
        raise ConfigError("name a model: dudi eval MODEL, or --model-args pretrained=MODEL (see dudi eval --help)")


def _set_once(given: argparse.Namespace, name: str, value: Any) -> None:
    """An option that a word of `--model-args` gives as well."""
    own = getattr(given, name)
    if own not in (None, False, _USUAL.get(name)) and str(own) != str(value):
        raise ConfigError(f"--model-args: {name} is {value} there, and {own} beside it; give one of them")
    if name == "batch_size":
        value = batch_size(str(value))
    elif name not in ("max_batch_size", "trust_remote_code"):
        value = str(value)  # a commit may look like a number
    setattr(given, name, value)


def listed(benchmarks: Sequence[str], tasks: Sequence[str] | None) -> str | None:
    """What `--tasks list` prints: the shipped sets with their languages; None where nobody asks for it."""
    if LM_EVAL.name not in benchmarks or list(tasks or ()) != ["list"]:
        return None
    from dudi.data.task_files import shipped_tasks

    sets: dict[str, list[str]] = {}
    for task in shipped_tasks():
        sets.setdefault(task.family, []).append(task.language)
    lines = [f"{name:<20}{' '.join(codes)}" for name, codes in sets.items()]
    others = "also any task, group or tag of lm_eval: lm_eval ls tasks (docs/tasks.md, docs/eval.md)"
    return "\n".join([*lines, "", others])


def batch_size(text: str) -> int | str:
    """The `type` of `--batch-size`: a number, or `AUTO`, which lm_eval also writes `auto:4`."""
    word, colon, times = text.partition(":")
    if word == AUTO and (not colon or times.isdecimal()):
        return AUTO
    return whole_number(1)(text)


def check_batch_size(size: int | str, names: Sequence[str]) -> None:
    """Refuse `AUTO` where another benchmark is asked too."""
    other = next((name for name in names if name != LM_EVAL.name), None)
    if size == AUTO and other is not None:
        raise ConfigError(f"--batch-size {AUTO}: is for {LM_EVAL.name}; give a number for {other}")


def one_seed(text: str) -> int:
    """A seed; also lm_eval's `0,1234,1234,1234`, of Python, NumPy, torch and the examples, of which dudi has one."""
    parts = text.split(",")
    try:
        seeds = [int(part) for part in parts]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text}") from None
    if len(seeds) not in (1, 4) or len(set(seeds[1:])) > 1:
        several = f"several runs are written --seed {' '.join(parts)}"
        raise argparse.ArgumentTypeError(f"{text}: sampling and examples have one seed; {several}")
    return seeds[-1]


def _truth(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"true or false, got {text}")
    return words[text.lower()]


def _numbers(text: str) -> Mapping[str, Any]:
    """`--samples`: a JSON object, or the file that holds one."""
    try:
        found = json.loads(text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{text} is neither a JSON object nor a file that can be read") from error
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text}: holds no task's name with the numbers of its questions")
    return found


class _Otherwise(argparse.Action):
    """Says what there is in place of a word of lm_eval's."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        names = tuple(self.option_strings)
        raise ConfigError(f"{names[0]}: {_OTHERWISE[names]} (see {parser.prog} --help)")


class _Config(argparse.Action):
    """A file of lm_eval's options, each as if it stood on the command line, which wins."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        content = read_yaml(Path(values), asked_by="--config").plain()
        if not isinstance(content, dict):
            raise ConfigError(f"--config {values}: is not a mapping of options to values")
        words: list[str] = []
        for key, value in content.items():
            option = f"--{key}".replace("_", "-")
            if option not in parser._option_string_actions or key == "config":
                hint = did_you_mean(option, parser._option_string_actions)
                raise ConfigError(f"--config {values}: there is no option '{key}'{hint}")
            words += _as_words(option, value)
        inside = parser.parse_args(words)
        for name, value in vars(inside).items():
            usual = parser.get_default(name)
            if value != usual and getattr(namespace, name, usual) == usual:
                setattr(namespace, name, value)


def _as_words(option: str, value: Any) -> list[str]:
    """How a value of a file stands on a command line; nothing where it says that the option is not there."""
    if value is False and option == "--fewshot-as-multiturn":
        return [option, "false"]
    if value is None or value is False or value in ({}, []):
        return []
    if value is True:
        return [option]
    if isinstance(value, dict):
        return [option, json.dumps(value)]
    words = [str(one) for one in (value if isinstance(value, list) else [value])]
    return [option, *([",".join(words)] if option == "--seed" else words)]


class _Pairs(argparse.Action):
    """`temperature=0,stop=["a","b"]`, `temperature=0 top_p=0.9` or a JSON object, as lm_eval reads them."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        found, option = dict(getattr(namespace, self.dest) or {}), self.option_strings[0]
        for word in values:
            try:
                found |= json.loads(word) if word.lstrip().startswith("{") else _pairs(option, word)
            except json.JSONDecodeError as error:
                raise ConfigError(f"{option}: '{word}' is not JSON: {error}") from error
        setattr(namespace, self.dest, found)


def _pairs(option: str, text: str) -> dict[str, Any]:
    found = {}
    for pair in filter(str.strip, _parts(text)):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{option}: '{pair}' is not of the form key=value")
        found[key.strip()] = _value(option, key.strip(), value.strip())
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


def _value(option: str, key: str, text: str) -> Any:
    """Numbers, truth values and lists as such, in Python's or JSON's spelling; all else is text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for read in (int, float, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    if text[:1] in ("[", "(", "{", '"', "'"):
        raise ConfigError(f'{option}: {key}: {text} is no value; a list is written ["a","b"]')
    return text
