"""Tasks of lm_eval as a benchmark: chosen and checked before a model is there, then put to any."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from dudi.errors import ConfigError, DataError, did_you_mean
from dudi.evaluation.entry import Outcome, Preview, Wanted, check_once_each
from dudi.evaluation.harness import NAME
from dudi.evaluation.harness.names import named_tasks, with_groups
from dudi.evaluation.harness.options import Options
from dudi.evaluation.records import SeedScores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dudi.data.chat import ChatFormat
    from dudi.evaluation.harness.tasks import Built

SHIPPED = "dudi_"
"""What the names of shipped tasks begin with."""
_SOURCE = ("dataset_path", "dataset_name", "num_fewshot", "output_type")
"""What is kept of a task's own words."""
_STOP = {"stop": "until"}
"""lm_eval's help writes `stop`, which is vLLM's word; of a model that is loaded it is `until`."""


class ChosenTasks:
    """Chosen tasks with their data: `dudi.evaluation.entry.Asked`; `notes`: what a person should know of the choice."""

    def __init__(self, built: Built, options: Options, notes: Sequence[str] = ()) -> None:
        self.tasks, self.groups, self.options = built.tasks, built.groups, options
        self.notes, tasks = [*notes, *built.notes], built.tasks
        for _, task in tasks.values():
            if options.gen_kwargs and task.OUTPUT_TYPE == "generate_until":
                task.set_config(key="generation_kwargs", value=dict(options.gen_kwargs), update=True)
        if unknown := next((name for name in options.samples if name not in tasks), None):
            raise ConfigError(f"--samples: no task '{unknown}' is asked{did_you_mean(unknown, tasks)}")
        self.asked = {name: self._chosen(name, task) for name, (_, task) in tasks.items()}
        digest = hashlib.sha256()
        for name, (_, task) in tasks.items():
            documents = task.eval_docs
            for number in self.asked[name]:
                try:
                    digest.update(_canonical(name, task, documents[number]))
                except (TemplateError, TypeError, ValueError, KeyError, IndexError) as error:
                    raise DataError(f"{name}: question {number}: a template fails: {str(error)[:200]}") from error
        self.total = sum(map(len, self.asked.values()))
        self._fingerprint = digest.hexdigest()

    def _chosen(self, name: str, task: Any) -> list[int]:
        """The numbers of a task's questions that are asked."""
        from lm_eval.evaluator_utils import get_sample_size

        total = len(task.eval_docs)
        if name in self.options.samples:
            numbers = sorted(set(self.options.samples[name]))
            if not numbers or not 0 <= numbers[0] <= numbers[-1] < total:
                raise ConfigError(f"--samples: {name} has the questions 0 to {total - 1}; got {numbers or 'none'}")
            return numbers
        size = min(total, get_sample_size(task, self.options.limit) or total)
        spaced = name.startswith(SHIPPED)
        return [number * total // size if spaced else number for number in range(size)]

    @property
    def benchmark(self) -> dict[str, Any]:
        languages = dict.fromkeys(one.language for one, _ in self.tasks.values() if one.language)
        samples = {name: self.asked[name] for name in self.options.samples}
        return {
            "name": NAME,
            "version": metadata.version("lm_eval"),
            "tasks": [f"{name} {task.VERSION}" for name, (_, task) in self.tasks.items()],
            "languages": list(languages),
            "limit": self.options.limit,
            **({"samples": samples} if samples else {}),  # only then: older records know no such key
            "questions": self.total,
            "fingerprint": self._fingerprint,
            "decoding": self.options.described(),
        }

    def check_seeds(self, seeds: Sequence[int]) -> None:
        check_once_each(seeds)
        if len(seeds) > 1 and not any(self._draws(task) for _, task in self.tasks.values()):
            raise ConfigError(
                f"{len(seeds)} seeds would give {len(seeds)} times the same: no example is drawn and nothing is "
                "sampled; set --num-fewshot or --gen-kwargs do_sample=true, or leave one seed"
            )

    def _draws(self, task: Any) -> bool:
        sampler = task.fewshot_cfg.sampler if hasattr(task, "fewshot_cfg") else "default"
        sampled = (task.get_config("generation_kwargs") or {}).get("do_sample", False)
        return bool(sampled) or (bool(task.get_config("num_fewshot")) and sampler != "first_n")

    def settle(self, file: Path, max_share: float) -> list[str]:
        """Nothing is left out of a task; what is told is of the choice."""
        file.unlink(missing_ok=True)
        return self.notes

    def prompts(self) -> Iterator[str]:
        for name, (_, task) in self.tasks.items():
            documents = task.eval_docs
            yield from (str(task.doc_to_text(documents[number])) for number in self.asked[name])

    def previews(self, chat: ChatFormat, seed: int) -> Iterator[Preview]:
        """The first question of each task as lm_eval makes it."""
        from dudi.evaluation.harness.model import rendered

        self._check_template(chat)
        template = functools.partial(rendered, chat.tokenizer, chat.kwargs)
        how = self.options.prompts() | {"chat_template": template if self.options.apply_chat_template else None}
        for name, (_, task) in self.tasks.items():
            task.set_fewshot_seed(seed=seed)
            with quiet():
                task.build_all_requests(samples=self.asked[name][:1], **how)
            request = task.instances[0]
            target = task.doc_to_target(request.doc)
            choices = task.doc_to_choice(request.doc) if task.config.doc_to_choice is not None else []
            known = isinstance(target, int) and 0 <= target < len(choices)
            yield Preview(name, str(request.args[0]), str(choices[target] if known else target))

    @property
    def configuration(self) -> Mapping[str, Any]:
        """`benchmark`, the keys of every task as lm_eval has read them, and those of the groups."""
        tasks = {name: task.dump_config() for name, (_, task) in self.tasks.items()}
        groups = {name: group.to_dict() for name, group in self.groups.items()}
        return {**self.benchmark, "configs": tasks, **({"groups": groups} if groups else {})}

    def _check_template(self, chat: ChatFormat) -> None:
        if self.options.apply_chat_template and not chat.tokenizer.chat_template:
            what = "the tokenizer has no chat template; give one with --chat-template"
            raise ConfigError(f"--apply-chat-template: {what}")

    def ask(
        self,
        model: PreTrainedModel,
        chat: ChatFormat,
        seeds: Sequence[int],
        done: Callable[[int], None] = lambda count: None,
    ) -> Outcome:
        """As `Asked` has it; the seeds are those of the examples that are drawn, and of sampling.

        Raises:
            ConfigError: a chat template is wanted and not there, or a task that lm_eval refuses.
        """
        from transformers import set_seed

        from dudi.evaluation.harness.model import LoadedModel
        from dudi.evaluation.harness.results import directions, question_lines, summed_up

        self._check_template(chat)
        runs, lines = [], []
        sent: dict[str, Any] = {}  # each task's first question: with a few examples all would be most of the file
        with quiet():
            lm = LoadedModel(
                model,
                chat.tokenizer,
                stop_ids=chat.stop_ids,
                batch_size=self.options.batch_size,
                template_kwargs=chat.kwargs,
                done=done,
            )
            for seed in sorted(seeds):
                set_seed(seed)
                for _, task in self.tasks.values():
                    task.set_fewshot_seed(seed=seed)
                with lm.opened():
                    results = self._evaluated(lm)
                runs.append(SeedScores(seed, summed_up(self.tasks, self.groups, results)))
                lines += question_lines(self.tasks, results, seed)
                samples = results["samples"]
                for name in self.tasks:  # of the first seed
                    sent.setdefault(name, next((one["arguments"] for one in samples[name]), ()))
        told: dict[str, dict[str, Any]] = {}
        for name, (_, task) in self.tasks.items():
            told[name] = {"version": task.VERSION, **{key: task.get_config(key) for key in _SOURCE}}
            # Examples, system turn and chat template are the same in the others; of a text that is read it is the text.
            if arguments := sent[name]:
                told[name]["first_prompt"] = str(arguments[0][0])
        known = {"better": directions(task for _, task in self.tasks.values()), "notes": self.notes}
        return Outcome(tuple(runs), lines, {"tasks": told} | {key: value for key, value in known.items() if value})

    def _evaluated(self, lm: Any) -> Mapping[str, Any]:
        from lm_eval.evaluator import evaluate

        try:
            found: Mapping[str, Any] = evaluate(
                lm=lm,
                task_dict={"tasks": {name: task for name, (_, task) in self.tasks.items()}},
                samples=self.asked,
                bootstrap_iters=0,  # standard errors are `results.standard_error`'s
                **self.options.prompts(),
            )
        except (ValueError, AssertionError) as error:  # what lm_eval says of tasks that it cannot ask
            raise ConfigError(f"lm_eval: {str(error).partition(chr(10))[0][:300]}") from error
        return found


def choose(name: str, wanted: Wanted) -> ChosenTasks:
    """What is wanted of this benchmark, as `dudi.evaluation.benchmarks.choose` hands it over.

    Temperature, `top_p`, `top_k` and `max_new_tokens` go to the tasks in which something is written; languages that
    nobody names are those that the model was trained in, and English.

    Raises:
        ConfigError: something that tasks do not have; else as `choose_tasks`.
        EnvironmentFault: the hub cannot be reached.
    """
    for option in ("part", "per_split", "language"):
        if getattr(wanted, option) is not None:
            word = f"--{option.replace('_', '-')}"
            raise ConfigError(f"{word}: {NAME} has no use for it; see --limit, --tasks and --languages")
    written = {"max_gen_toks": wanted.max_new_tokens, "top_p": wanted.top_p, "top_k": wanted.top_k}
    written |= {"do_sample": True, "temperature": wanted.temperature} if wanted.temperature else {}
    kwargs = {name: value for name, value in written.items() if value is not None}
    own: Mapping[str, Any] = wanted.options.get("gen_kwargs") or {}
    kwargs |= {_STOP.get(key, key): value for key, value in own.items()}
    options = Options.of({**wanted.options, "gen_kwargs": kwargs}, wanted.batch_size)
    languages = wanted.languages
    if not languages and wanted.trained is not None:
        languages = list(dict.fromkeys([*wanted.trained.languages, "en"]))
    found = choose_tasks(wanted.tasks, languages, options)
    if wanted.options.get("fewshot_as_multiturn") and not options.apply_chat_template:
        found.notes.append("--fewshot-as-multiturn: has no effect without --apply-chat-template")
    return found


def choose_tasks(words: Sequence[str] | None, languages: Sequence[str] | None, options: Options) -> ChosenTasks:
    """The tasks that are wanted, their data loaded; words and languages as of `named_tasks`.

    Raises:
        ConfigError: no task, an unknown one, or lm_eval is not installed.
        EnvironmentFault: the hub cannot be reached.
    """
    try:
        metadata.version("lm_eval")
    except metadata.PackageNotFoundError:
        raise ConfigError("benchmark lm-eval: the package lm_eval is missing: pip install 'dudi[lm-eval]'") from None
    if not words:
        raise ConfigError("benchmark lm-eval: name what is asked: --tasks sib200,belebele (docs/tasks.md lists them)")
    words, include = with_groups(words, options.include_path)
    named, notes = named_tasks(words, languages, include)
    if not named:
        raise ConfigError(f"--tasks: {'; '.join(notes)}")
    from dudi.evaluation.harness.tasks import build_tasks

    with quiet():
        built = build_tasks(named, dataclasses.replace(options, include_path=include))
        return ChosenTasks(built, options, notes)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """lm_eval's warnings and bars are for its own command line."""
    from lm_eval.api import task

    logger, bar = logging.getLogger("lm_eval"), task.tqdm
    level = logger.level
    logger.setLevel(logging.ERROR)
    task.tqdm = functools.partial(bar, disable=True)  # it has no switch
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        logger.setLevel(level)
        task.tqdm = bar


def _canonical(name: str, task: Any, document: Mapping[str, Any]) -> bytes:
    """A question as it is told from others: its document, its wording and what is right."""
    choices = task.doc_to_choice(document) if task.config.doc_to_choice is not None else None
    content = [name, document, task.doc_to_text(document), choices, task.doc_to_target(document)]
    return json.dumps(content, ensure_ascii=False, sort_keys=True, default=str).encode() + b"\n"
