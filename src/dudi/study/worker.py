"""One job of a study, from its recipe to `result.json`."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import PreTrainedModel

from dudi.data.chat import ChatFormat, borrow_template, chat_format, template_kwargs
from dudi.distill.loading import build_trainer, model_of, read_rows, tokenizer_of
from dudi.distill.recipe import RunConfig, load_run_config
from dudi.distill.run import train
from dudi.distill.stages.cold_start import COLD_START
from dudi.environment import quiet_libraries
from dudi.evaluation.after_training import asked_questions
from dudi.evaluation.benchmark import ask, described
from dudi.evaluation.summary import scores_by, summarise
from dudi.models.load import load_model, load_tokenizer, move
from dudi.study.counting import counted_flops
from dudi.study.jobs import RESULT, Job
from dudi.training import checkpoints
from dudi.training.runlog import read_jsonl

if TYPE_CHECKING:
    from dudi.distill.arguments import DudiConfig

CURVES = ("overlap@16", "student_entropy", "teacher_entropy", "rollout/wrong_language_rate")
PHASES = ("rollout", "teacher", "reference", "student", "step")


def run_job(job: Job, runs: Path, *, keep_models: bool = False) -> dict[str, Any]:
    """Do one job and write its result; what it prints goes to `log.txt` in its folder.

    Args:
        job: What to do.
        runs: The study's folder; stages that runs share are cached in it.
        keep_models: Leave the weights; otherwise they are deleted once they have been asked.

    Returns:
        What `result.json` holds.
    """
    folder = runs / job.id
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a", encoding="utf-8") as log, _into(log):
        result = _KINDS[job.kind](job, folder, runs / "cache")
    about = {"kind": job.kind, "seed": job.seed, "recipe": Path(job.recipe).name, "words": list(job.words)}
    result = about | result | {"torch": torch.__version__, "transformers": transformers.__version__}
    checkpoints.write_json(folder / RESULT, result)
    if not keep_models:
        for part in ("checkpoints", "stages", "model"):
            shutil.rmtree(folder / "run" / part, ignore_errors=True)
    return result


@contextlib.contextmanager
def _into(log: Any) -> Iterator[None]:
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        quiet_libraries()
        yield


def _method(job: Job, folder: Path, cache: Path) -> dict[str, Any]:
    config, place = _quiet_config(job, cache), folder / "run"
    with _clock() as clock:
        train(config, config.dudi_config(place))
    return {"method": config.method, **_trained(job, config, place, place / "model"), **clock}


def _cold_start(job: Job, folder: Path, cache: Path) -> dict[str, Any]:
    config, place = _quiet_config(job, cache), folder / "run"
    args = config.dudi_config(place)
    with _clock() as clock:
        build_trainer(config, args, *read_rows(config, args, place)).run_cold_start()
    return {"method": args.cold_start, **_trained(job, config, place, place / "stages" / COLD_START / "model"), **clock}


def _trained(job: Job, config: RunConfig, place: Path, model: Path) -> dict[str, Any]:
    """The scores of a trained model, and how its stage went."""
    args = config.dudi_config(place)
    kwargs = template_kwargs(args.chat_template_kwargs, "student")
    chat = chat_format(load_tokenizer(str(model)), kwargs, config.student.model)
    stage = COLD_START if job.kind == "cold_start" else config.method
    records = [one for one in read_jsonl(place / "metrics.jsonl") if one.get("stage") == stage]
    phases = {name: round(sum(one.get(f"time/{name}", 0.0) for one in records), 2) for name in PHASES}
    return {
        **_asked(job, args, load_model(str(model), dtype=torch.float32), chat),
        "steps": len(records),
        "phases": phases,
        "curves": {name: [one.get(name) for one in records] for name in CURVES if name in records[-1]},
    }


def _reference(job: Job, folder: Path, cache: Path) -> dict[str, Any]:
    config = _quiet_config(job, cache)
    args = config.dudi_config(folder)
    section = config.student if job.model == "student" else config.teacher
    tokenizer = tokenizer_of(section, job.model)
    borrow_template(tokenizer, tokenizer_of(config.student, "student"))
    model = model_of(section, "float32")
    chat = chat_format(tokenizer, template_kwargs(args.chat_template_kwargs, job.model), str(section.model))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"model": str(section.model), "parameters": parameters, **_asked(job, args, model, chat, floor=True)}


def _cost(job: Job, folder: Path, cache: Path) -> dict[str, Any]:
    config = _quiet_config(job, cache)
    return counted_flops(config, config.dudi_config(folder / "run"), cold_start=job.key.startswith(COLD_START))


_KINDS = {"method": _method, "cold_start": _cold_start, "reference": _reference, "cost": _cost}


def _quiet_config(job: Job, cache: Path) -> RunConfig:
    """The row's recipe at the job's seed; its questions are asked here, so that the run itself asks none."""
    words = [*job.words, f"seed={job.seed}", "benchmark=null", "disable_tqdm=true", f"cache_dir={cache}"]
    return load_run_config(job.recipe, words)


def _asked(
    job: Job, args: DudiConfig, model: PreTrainedModel, chat: ChatFormat, *, floor: bool = False
) -> dict[str, Any]:
    """The benchmark's questions to one model, as the recipe's section says."""
    config = load_run_config(job.recipe, [*job.words])
    section = config.benchmark
    if section is None:
        return {"scores": {}}
    move(model, args.device)
    questions = asked_questions(config, args.languages)
    with _clock() as clock:
        answered = ask(
            "it", model, chat, questions, max_new_tokens=section.max_new_tokens, batch_size=section.batch_size
        )
    summary = summarise(answered)
    about = described(questions, part=section.part, max_new_tokens=section.max_new_tokens)
    own = summary["it"] | {"by_kind": scores_by(answered, lambda one: one.kind)}  # finer than the benchmark's tasks
    found = {"benchmark": about, "scores": own, "asking_seconds": clock["seconds"]}
    return found | ({"floor": summary["floor"]} if floor else {})


@contextlib.contextmanager
def _clock() -> Iterator[dict[str, Any]]:
    """Wall time, and processor time: the second hardly changes when other jobs run beside."""
    found: dict[str, Any] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield found
    found["seconds"] = {"wall": round(time.perf_counter() - wall, 2), "cpu": round(time.process_time() - cpu, 2)}
