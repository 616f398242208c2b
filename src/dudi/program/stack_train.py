"""A stage of `dudi stack`: from a recipe to a run directory, as `dudi train` makes one."""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.command import say
from dudi.data.sources import by_language
from dudi.environment import choose_precision, quiet_libraries
from dudi.errors import ConfigError, EnvironmentFault
from dudi.files import write_json
from dudi.models.load import find_model
from dudi.report import write_model_card, write_report
from dudi.stacking import stored
from dudi.stacking.arguments import StackArguments
from dudi.stacking.earlier import check_earlier, held_by_start, parents_of
from dudi.stacking.planning import plan_stage
from dudi.stacking.reading import first_texts, notes_of, rows_with_english, store_texts, training_rows
from dudi.stacking.recipe import ALONE, WITH_TASK, LlmSection, StackConfig
from dudi.stacking.rows import StackRow, fingerprint
from dudi.stacking.stages import STAGES, StageJob, task_of
from dudi.stacking.store import TextRows
from dudi.stacking.unloaded import check_unloaded
from dudi.training.interrupts import Interrupts
from dudi.training.ranks import from_first, together
from dudi.training.run_folder import check_output, go_on, is_finished, starting_point, write_records
from dudi.training.runlog import read_jsonl
from dudi.training.sources import SOURCES, times_of, touched

TEXTS = "texts"
"""The folder, inside a run's, of the texts that it is trained on; gone when the run is finished."""
MODELS = "models"
"""What `data.json` calls the digests of the models that a run is made of, by the keys that name them."""

NEXT = {
    "adapt": "dudi stack align RECIPE llm={place}/model",
    "align": "dudi stack finetune RECIPE start={place}   (or teach, then distill)",
    "teach": "dudi stack distill RECIPE teacher={place} start=THE_RUN_OF_ALIGN",
    "distill": "dudi stack eval {place} ROWS.jsonl",
    "finetune": "dudi stack eval {place} ROWS.jsonl",
    "generation": "dudi stack generate {place} ROWS.jsonl",
}


def run_stage(config: StackConfig, *, dry_run: bool = False, resume: str = "auto", output: Path | None = None) -> int:
    """Run the stage that a recipe names, or show what it would do; returns the exit code.

    `resume` is as in `dudi.distill.run.train`; the run's folder is `runs/NAME-STAGE` when `output` is None.
    """
    quiet_libraries()
    folder = output if output is not None else default_output(config)
    args = config.stack_arguments(folder)
    from_first(lambda: check_output(folder, resume, config.named_places))
    if dry_run:
        return say(describe(config, args, folder))
    with Interrupts():
        return _run(config, args, folder, resume)


def _run(config: StackConfig, args: StackArguments, folder: Path, resume: str) -> int:
    first = args.process_index == 0
    if resume == "auto" and from_first(lambda: is_finished(folder, config.digest())):
        check_finished(config, folder)
        return say(f"{folder} holds this run, finished: {folder}/model. Use --resume never to run it again")
    task = task_of(config) if config.stage in WITH_TASK else None
    config.check_models()
    check_earlier(config, task)
    seen = times_of(_places(config), folder) if first else {}  # before any of it is read
    rows, eval_rows, bitext, data = _read(config, folder)
    parallel = rows_with_english(config, "parallel")
    start = from_first(lambda: starting_point(folder, resume, {config.stage}))
    models = from_first(lambda: models_of(config))
    if start is not None:  # its rows stand in the checkpoint
        what = f"{start} belongs to a run that began with other models under the same names"
        from_first(lambda: _refuse(what, _told(folder), models))
    if first:
        say(f"{config.stage} -> {folder}   ({choose_precision(config.dtype, use_cpu=args.use_cpu).reason})")
        resolved = config.resolved_yaml(held_by_start(config))
        write_records(folder, resolved, data | {MODELS: models}, dtype=config.dtype, use_cpu=args.use_cpu)
        write_json(folder / SOURCES, seen)
        for line in [*_said(data), *notes_of(config)]:
            say(line)
        go_on(folder, start, resume)
    job = StageJob(config, args, rows, eval_rows, parallel, start, bitext)
    model, source, llm_tokenizer = STAGES[config.stage](job)
    if first:
        about = {"stage": config.stage, "config": config.digest()}
        place = folder / stored.MODEL
        stored.save_model(place, model, source.tokenizer, llm_tokenizer, about, whole=args.save_parents)
        shutil.rmtree(folder / TEXTS, ignore_errors=True)
        for code, how in source.stand_ins.items():
            say(f"note: {code} is read as {how}")
        finish(folder, config)
    return 0


def check_finished(config: StackConfig, folder: Path) -> None:
    """Refuse a finished run whose rows or models, parents and earlier stages, are others now under the same names.

    Where no file was touched since it began, or it did not write down its files, nothing is read.
    """
    now = from_first(lambda: touched(_places(config), folder))
    if now is None:
        return
    found = _read(config, folder)[-1]
    together(lambda: None)  # all processes have opened the texts
    from_first(lambda: shutil.rmtree(folder / TEXTS, ignore_errors=True))
    from_first(lambda: _hold_against(config, folder, found))
    from_first(lambda: write_json(folder / SOURCES, now))  # touched, and the same


def _hold_against(config: StackConfig, folder: Path, found: dict[str, Any]) -> None:
    """Refuse a finished run that was made of other rows than those that were `found`, or of other models."""
    told, rows = _told(folder), []
    if told["fingerprint"] != found["fingerprint"]:
        rows.append("data.train")
    if told.get("bitext", {}).get("fingerprint") != found.get("bitext", {}).get("fingerprint"):
        rows.append("data.bitext")
    _refuse(f"{folder} holds this run, finished, and what it was made of is another now", told, models_of(config), rows)


def _refuse(what: str, told: Mapping[str, Any], models: Mapping[str, str], others: Sequence[str] = ()) -> None:
    """Refuse a run whose models, as far as it wrote them down, are others now; or of which `others` have changed."""
    before = told.get(MODELS, {})
    changed = [key for key, digest in models.items() if before.get(key, digest) != digest] + [*others]
    if changed:
        raise ConfigError(f"{what}: {', '.join(changed)}. --resume never runs it again, --output makes another")


def _told(folder: Path) -> dict[str, Any]:
    """What a run wrote down of its data; nothing where it did not come so far."""
    file = folder / "data.json"
    told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return told


def models_of(config: StackConfig) -> dict[str, str]:
    """Digests of the models that a stage is made of, by the keys that name them; of those that lie on this disk."""
    found = {f"{key}.model": stored.digest_of(name) for key, name in config.earlier.items()}
    parents = {key: stored.digest_of_parent(name) for key, name in parents_of(config).items()}
    return found | {key: digest for key, digest in parents.items() if digest is not None}


def _places(config: StackConfig) -> list[str | None]:
    """The names of all that a stage reads, what its `start` stands on included."""
    return [*config.named_places.values(), *parents_of(config).values()]


def _read(
    config: StackConfig, folder: Path
) -> tuple[Sequence[StackRow], list[StackRow], list[StackRow], dict[str, Any]]:
    """The rows to train on, those for evaluation during training, bitext, and what `data.json` says of them.

    Labelled rows are held in memory. Texts, of which there are millions, are written once, by the first process, to a
    file in the run's folder, which every process maps.
    """
    if config.stage in WITH_TASK:
        rows, eval_rows = training_rows(config, task_of(config))
        return rows, eval_rows, [], _described(config.data.train, rows) | {"rejected": {}}
    left_out = from_first(lambda: store_texts(config, folder / TEXTS))
    texts = TextRows(folder / TEXTS)
    bitext = rows_with_english(config, "bitext")
    also = {"bitext": _described(config.data.bitext, bitext)} if bitext else {}
    about = {"source": config.data.train, "fingerprint": texts.digest, "rows": texts.counts, "rejected": left_out}
    return texts, [], bitext, about | also


def _described(source: str | None, rows: Sequence[StackRow]) -> dict[str, Any]:
    """Rows in memory, as `data.json` tells of them."""
    counts = dict(Counter(row.language for row in rows))
    return {"source": source, "fingerprint": fingerprint(rows), "rows": counts}


def _said(data: dict[str, Any]) -> list[str]:
    lines = []
    for what, own in (("rows", data), ("rows of bitext, which come first", data.get("bitext"))):
        if own is not None:
            counts = own["rows"]
            lines.append(f"note: {sum(counts.values()):,} {what}: {by_language(counts)}")
    if data["rejected"]:
        lines.append(f"note: {data['rejected']['blank']:,} rows without text were left out")
    return lines


def default_output(config: StackConfig) -> Path:
    """`runs/NAME-STAGE`; the stage once."""
    name = config.recipe_name.replace("/", "-")
    if not f"-{name}".endswith(f"-{config.stage}"):
        name = f"{name}-{config.stage}"
    return Path("runs") / name


def describe(config: StackConfig, args: StackArguments, folder: Path) -> str:
    """What a run would do: its keys that are no defaults, where each is from, and what lies at the names in them."""
    lines = [f"dudi stack {config.stage} -> {folder}", ""]
    kept = [line for line in config.resolved_yaml().splitlines() if line and not line.endswith("# default")]
    sections = [line for line in kept if not line.startswith("#")]
    for line, following in itertools.zip_longest(sections, sections[1:], fillvalue=""):
        if not line.endswith(":") or following.startswith("  "):  # else a section that holds nothing but defaults
            lines.append(line)
    return "\n".join([*lines, "", *_found(config, args), "dry run: nothing was trained"])


def _found(config: StackConfig, args: StackArguments) -> list[str]:
    """The models and rows that a stage would read, each looked for."""
    task = task_of(config) if config.stage in WITH_TASK else None
    config.check_models()
    check_earlier(config, task)
    earlier = config.earlier
    parts = {"encoder": None if config.stage in ALONE else config.encoder, "llm": config.llm}
    lines = [f"{role:<9}{stored.model_folder(name)}" for role, name in earlier.items()]
    for role, part in parts.items() if "start" not in earlier else ():
        if part is not None and part.model is not None:
            file = part.gguf_file if isinstance(part, LlmSection) else None
            find_model(part.model, revision=part.revision, gguf_file=file)
            lines.append(f"{role:<9}{part.model}")
    known = None
    if task is not None:
        rows, held_out = training_rows(config, task)
        known = len(rows)
        check_unloaded(config, args, [*rows, *held_out])
        count, others = f"{len(rows):,}", {"held out": held_out}
    else:
        texts, count = first_texts(config)
        parallel, bitext = rows_with_english(config, "parallel"), rows_with_english(config, "bitext")
        check_unloaded(config, args, [*texts, *parallel, *bitext])
        others = {"parallel": parallel, "bitext": bitext}
    lines += [f"rows     {count}", *(f"{name:<9}{len(own):,}" for name, own in others.items() if own)]
    lines += notes_of(config)
    try:
        return [*lines, "", plan_stage(config, rows=known).text(), ""]
    except EnvironmentFault as error:
        return [*lines, f"no estimate: {error}"]


def finish(folder: Path, config: StackConfig) -> None:
    """Write the report and the model card, and say where everything is."""
    write_report([folder])
    write_model_card(folder)
    records = read_jsonl(folder / "metrics.jsonl")
    read = sum(line.get("rows/read", 0) for line in records)
    shortened = sum(line.get("rows/shortened", 0) for line in records)
    if shortened:
        say(f"note: {shortened:,} of {read:,} rows were longer than max_length and were shortened")
    if probed := max((line.get("parallel/shortened", 0) for line in records), default=0):
        cut = "were longer than max_length and were measured without their end"
        say(f"note: {probed:,.0f} rows of data.parallel {cut}")
    last: dict[str, Any] = next((record for record in reversed(records) if "loss" in record), {})
    wanted = ("loss", "fvu", "cosine", "accuracy")
    say("  ".join(f"{key} {last[key]:.3g}" for key in wanted if isinstance(last.get(key), float)))
    place = shlex.quote(str(folder))
    done = "generation" if config.stage == "finetune" and config.task.kind == "generation" else config.stage
    say(
        f"report   {place}/report.html\n"
        f"model    {place}/model\n"
        f"metrics  {place}/metrics.jsonl  (a line per step)\n"
        f"card     {place}/README.md\n"
        f"next     {NEXT[done].format(place=place)}"
    )
