"""The words of `dudi eval --benchmark seahelm`."""

from __future__ import annotations

import argparse
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from dudi.command import say
from dudi.errors import ConfigError
from dudi.evaluation.records import FILE
from dudi.evaluation.seahelm.catalogue import DEFAULT_SET
from dudi.evaluation.seahelm.evaluate import FOLDER, evaluate_seahelm
from dudi.evaluation.seahelm.server import KINDS, Options
from dudi.evaluation.seahelm.table import seahelm_table

NOT_OURS = (
    *("part", "per_split", "language", "top_p", "top_k", "max_new_tokens"),
    *("revision", "device", "chat_template", "trust_remote_code"),
)
"""Options of `dudi eval` that a server or SEA-HELM decides."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that only SEA-HELM has; the others are `dudi.program.eval_options`'."""
    own = parser.add_argument_group("SEA-HELM (--benchmark seahelm; docs/seahelm.md)")
    own.add_argument("--seahelm", type=Path, metavar="DIR", help="a checkout of SEA-HELM")
    own.add_argument("--seahelm-python", type=Path, metavar="PY", help="its interpreter (default: DIR/.venv)")
    own.add_argument("--server", default="vllm", choices=KINDS, help="what serves the model (default: vllm)")
    own.add_argument("--server-python", type=Path, metavar="PY", help="the server's interpreter (default: this one)")
    own.add_argument("--server-args", default="", metavar="WORDS", help="more words for the server, in one string")
    own.add_argument("--base-url", metavar="URL", help="a server that runs already; MODEL is its name for the model")
    own.add_argument("--limit", type=int, metavar="N", help="only so many examples per task: a trial")
    own.add_argument("--skip-tasks", nargs="+", default=[], metavar="TASK", help="leave these out")
    own.add_argument("--judges", action="store_true", help="also what another language model judges (MT-Bench ...)")
    own.add_argument("--count-all", action="store_true", help="count cultural and multi-turn tasks in the totals too")
    own.add_argument("--workers", type=int, metavar="N", help="requests at a time (default: 64; transformers: 1)")
    own.add_argument("--port", type=int, metavar="N", help="the server's port (default: a free one)")
    own.add_argument("--startup-timeout", type=float, default=900.0, metavar="S", help="default: %(default).0f")


def run(given: argparse.Namespace) -> int:
    """Evaluate as the command line of `dudi eval` says, print the table, and write `evaluation.json`.

    Returns:
        0; also when tasks are missing, which the table says.

    Raises:
        ConfigError: `--seahelm` is not given, or anything that `evaluate_seahelm` refuses.
    """
    from dudi.program.eval_options import FOLDER as EVALS
    from dudi.program.eval_options import check_numbers, seeds_of

    _check(given)
    check_numbers(given)
    name = given.name or Path(given.model).name
    output = given.output or EVALS / name
    if given.force:
        shutil.rmtree(output / FOLDER, ignore_errors=True)
    evaluation = evaluate_seahelm(
        given.model,
        checkout=given.seahelm,
        python=given.seahelm_python,
        seeds=seeds_of(given),
        tasks=_words(given.tasks) or (DEFAULT_SET,),
        languages=_words(given.languages),
        skip_tasks=_words(given.skip_tasks) or (),
        judges=given.judges,
        limit=given.limit,
        output=output,
        name=name,
        server=_options(given),
        base_url=given.base_url,
        temperature=given.temperature,
        workers=given.workers,
        count_all=given.count_all,
    )
    return say(f"{seahelm_table(evaluation)}\n{output / FILE}")


def _check(given: argparse.Namespace) -> None:
    if given.seahelm is None:
        raise ConfigError("--benchmark seahelm: name a checkout of SEA-HELM with --seahelm DIR (docs/seahelm.md)")
    for word in NOT_OURS:
        if getattr(given, word, None) not in (None, False, "auto"):
            raise ConfigError(
                f"--{word.replace('_', '-')} does nothing with --benchmark seahelm; see --server-args (docs/seahelm.md)"
            )


def _options(given: argparse.Namespace) -> Options:
    return Options(
        kind=given.server,
        python=given.server_python,
        words=tuple(shlex.split(given.server_args)),
        dtype=given.dtype,
        port=given.port,
        startup_timeout=given.startup_timeout,
    )


def _words(given: str | Sequence[str] | None) -> list[str] | None:
    """`a b`, `a,b`: the words."""
    parts = [given] if isinstance(given, str) else list(given or ())
    return [word for part in parts for word in part.split(",") if word] or None
