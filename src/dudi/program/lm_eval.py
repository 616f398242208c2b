"""The words of `dudi eval --benchmark lm-eval`: those of lm_eval's own command line, with a dash or an underscore."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dudi.errors import ConfigError
from dudi.evaluation.benchmarks import LM_EVAL


def lm_eval_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that only lm_eval has, `--limit` aside, which SEA-HELM has too."""
    group = parser.add_argument_group(f"lm-evaluation-harness (--benchmark {LM_EVAL.name}; docs/tasks.md)")

    def add(name: str, **how: Any) -> None:
        group.add_argument(*dict.fromkeys([name, f"--{name[2:].replace('-', '_')}"]), **how)

    add("--num-fewshot", type=int, metavar="N", help="examples in front of each question (default: the task's own)")
    add("--apply-chat-template", action="store_true", default=None, help="prompts go through the chat template")
    add(
        "--fewshot-as-multiturn",
        type=_truth,
        metavar="true|false",
        help="examples as turns of the chat (default: true)",
    )
    add("--system-instruction", metavar="TEXT", help="a system turn in front")
    add("--gen-kwargs", type=_pairs, metavar="KEY=VALUE,...", help="of generation, over the task's own")
    add("--include-path", type=Path, nargs="+", metavar="DIR", help="folders of task files")
    add("--data", type=Path, metavar="DIR", help="local Parquet files in place of the hub")


def _truth(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"true or false, got {text}")
    return words[text.lower()]


def _pairs(text: str) -> dict[str, Any]:
    """`do_sample=true,temperature=0.7`: numbers and truth values as such."""
    import yaml

    found = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--gen-kwargs: '{pair}' is not of the form key=value")
        found[key.strip()] = yaml.safe_load(value)
    return found
