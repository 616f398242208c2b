"""Every recipe of `dudi stack` runs two steps through the command line, with tiny models of its architectures."""

import json

import pytest

from dudi.cli import main
from dudi.config import list_recipes, load_stack_config
from stack_helpers import (
    FOREIGN,
    TEXTS,
    choice_rows,
    make_llm,
    make_llm_tokenizer,
    make_mt,
    make_nllb_tokenizer,
)

RECIPES = [name for name in list_recipes(stacks=True) if not name.startswith("stack/mini")]
FAMILIES = {"llama": "llama", "gpt2": "gpt2", "qwen3": "qwen3"}


def stages_of(name):
    last = name.rpartition("/")[2]
    return [last] if last in ("adapt", "align") else ["teach", "distill", "finetune"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Parents of each architecture, rows of each kind, and a finished Stage 1 and a tuned teacher to go on from."""
    root = tmp_path_factory.mktemp("stack")
    make_mt().save_pretrained(root / "encoder")
    make_nllb_tokenizer().save_pretrained(root / "encoder")
    for family in FAMILIES.values():
        make_llm(family).save_pretrained(root / family)
        make_llm_tokenizer().save_pretrained(root / family)
    plain = [{"text": text} for text in TEXTS] + [{"text": ""}]
    both = list(zip(TEXTS, FOREIGN, strict=True))
    labelled = [{"premise": t, "hypothesis": f, "text": t, "label": n % 3} for n, (t, f) in enumerate(both)]
    choices = [{"text": row.text, "choices": list(row.choices), "label": row.label} for row in choice_rows()]
    parallel = [{"text": f, "english": t, "language": "ind_Latn"} for t, f in both]
    for name, rows in (("plain", plain), ("labelled", labelled), ("choices", choices), ("parallel", parallel)):
        write(root / f"{name}.jsonl", rows)
    return root


def write(path, rows):
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")


def words(stage, name, place, output, *more):
    config = load_stack_config(name, stage)
    family = next(kind for key, kind in FAMILIES.items() if key in str(config.llm.model).lower())
    rows = "plain" if stage in ("adapt", "align") else "choices" if config.task.kind == "choice" else "labelled"
    return [
        "stack", stage, name,
        f"llm.model={place}/{family}", "llm.adapters=[]", f"encoder={place}/encoder",
        f"data.train={place}/{rows}.jsonl", f"data.eval={place}/{rows}.jsonl", "data.eval_split=train",
        "max_steps=2", "per_device_train_batch_size=2", "gradient_accumulation_steps=2", "max_length=64",
        "eval_steps=1", "save_steps=1", "lora.r=4", "use_cpu=true", "disable_tqdm=true",
        "--output", str(output), *more,
    ]  # fmt: skip


def check_run(folder, stage):
    for name in ("resolved.yaml", "env.json", "data.json", "metrics.jsonl", "report.html", "README.md"):
        assert (folder / name).is_file(), name
    assert (folder / "model" / "config.json").is_file()
    assert (folder / "checkpoints" / "step-2" / "manifest.json").is_file()
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["step"] for record in records if "loss" in record and record["stage"] == stage] == [1, 2]
    return records


def run_stages(name, stages, place, root):
    for stage in stages:
        more = ["start=null"] if stage != "distill" else ["start=null", f"teacher={root}/teach"]
        more += [f"data.parallel={place}/parallel.jsonl"] if stage == "align" else []
        assert main(words(stage, name, place, root / stage, *more)) == 0
        check_run(root / stage, stage)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_two_steps(name, place, tmp_path):
    """One stage of each; the three stages of a task together are another test's."""
    stages = stages_of(name)
    run_stages(name, stages[-1:] if name.endswith("nusax") else stages[:1], place, tmp_path)


def test_a_task_is_taught_and_distilled(place, tmp_path):
    run_stages("stack/nllb-llm2vec/mnli", ["teach", "distill"], place, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_stage_of_a_recipe_runs_two_steps(name, place, tmp_path):
    run_stages(name, stages_of(name), place, tmp_path)
