"""Every recipe of `dudi stack` runs two steps through the command line, with tiny models of its architectures."""

import json
import shutil

import pytest
import yaml
from stack_helpers import (
    FOREIGN,
    TEXTS,
    choice_rows,
    make_llm,
    make_llm_tokenizer,
    make_mt,
    make_nllb_tokenizer,
)
from transformers import XLMRobertaConfig, XLMRobertaModel

from dudi.config.recipe_files import STACK_SECTIONS, STUDENT_SECTIONS, list_recipes
from dudi.distill.recipe import SECTIONS
from dudi.errors import ConfigError
from dudi.program.cli import main
from dudi.program.stack_train import default_output
from dudi.stacking import StackArguments
from dudi.stacking.recipe import STACK, load_stack_config, read_words

RECIPES = [name for name in list_recipes(stacks=True) if not name.startswith("stack/mini")]
# A word of the LLM's name, and the architecture that stands for it; Gemma's own is in test_stack_parts.py.
FAMILIES = {
    "llama": "llama",
    "gpt2": "gpt2",
    "qwen3": "qwen3",
    "smollm2": "llama",
    "qwen2": "qwen2",
    "gemma": "mistral",
}


def stages_of(name):
    last = name.rpartition("/")[2]
    return [last] if last in ("adapt", "align") else ["teach", "distill", "finetune"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Parents of each architecture, rows of each kind, and a finished Stage 1 and a tuned teacher to go on from."""
    root = tmp_path_factory.mktemp("stack")
    make_mt().save_pretrained(root / "encoder")
    make_nllb_tokenizer().save_pretrained(root / "encoder")
    for family in set(FAMILIES.values()):
        make_llm(family).save_pretrained(root / family)
        make_llm_tokenizer().save_pretrained(root / family)
    plain = [{"text": text} for text in TEXTS] + [{"text": ""}]
    both = list(zip(TEXTS, FOREIGN, strict=True))
    labelled = [{"premise": t, "hypothesis": f, "label": n % 3} for n, (t, f) in enumerate(both)]
    choices = [{"text": row.text, "choices": list(row.choices), "label": row.label} for row in choice_rows()]
    parallel = [{"text": f, "english": t, "language": "ind_Latn"} for t, f in both]
    of_two = [row | {"label": row["label"] % 2} for row in labelled]
    kinds = {"plain": plain, "labelled": labelled, "of_two": of_two, "choices": choices, "parallel": parallel}
    for name, rows in kinds.items():
        write(root / f"{name}.jsonl", rows)
    return root


def write(path, rows):
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")


def words(stage, name, place, output, *more):
    config = load_stack_config(name, stage)
    family = next(kind for key, kind in FAMILIES.items() if key in str(config.llm.model).lower())
    of_task = "choices" if config.task.kind == "choice" else "of_two" if len(config.task.labels) == 2 else "labelled"
    alone = stage in ("adapt", "align")
    rows = "plain" if alone else of_task
    held_out = [] if alone else [f"data.eval={place}/{rows}.jsonl", "data.eval_split=train"]
    return [
        "stack", stage, name,
        f"llm.model={place}/{family}", "llm.adapters=[]", f"encoder={place}/encoder",
        f"data.train={place}/{rows}.jsonl", *held_out,
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


def test_the_run_that_a_recipe_names_as_its_teacher_can_be_made_again(place, tmp_path, capsys):
    """The recipe is for several stages: to `teach` it names its own folder."""
    command = words("teach", "stack/nllb-llm2vec/nusax", place, tmp_path / "run", f"teacher={tmp_path}/run")
    assert main(command) == 0
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert f"| LLM | {place}/llama |" in card
    assert not any(f"| {role} |" in card for role in ("encoder", "earlier stage", "tuned teacher"))  # which it read not
    capsys.readouterr()
    assert main(command) == 0
    assert "holds this run, finished" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "run" / "model")
    assert main(command) == 0
    assert "going on from" in capsys.readouterr().out
    assert main([*command, "--dry-run"]) == 0
    distil = words(
        "distill", "stack/nllb-llm2vec/nusax", place, tmp_path / "run", f"teacher={tmp_path}/run", "start=null"
    )
    assert main(distil) == 2
    assert "is the folder of teacher.model itself" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_stage_of_a_recipe_runs_two_steps(name, place, tmp_path):
    run_stages(name, stages_of(name), place, tmp_path)


# ---- the whole way, and what goes wrong on it


@pytest.fixture(scope="module")
def runs(place, tmp_path_factory):
    """Stage 1, then a task on it, through the command line."""
    root = tmp_path_factory.mktemp("runs")
    parallel = f"data.parallel={place}/parallel.jsonl"
    assert main(words("align", "stack/nllb-qwen3-0.6b/align", place, root / "align", parallel, "probe_steps=1")) == 0
    task = words("finetune", "stack/nllb-qwen3-0.6b/nusax", place, root / "finetune", f"start={root}/align")
    assert main([*task, "encoder.codes={id: ind_Latn}"]) == 0
    return root


def test_stage_1_measures_each_language_and_says_what_it_is(runs):
    lines = check_run(runs / "align", "align")
    assert all("fvu/ind_Latn" in line and "cosine/ind_Latn" in line for line in lines)
    config = json.loads((runs / "align" / "model" / "config.json").read_text(encoding="utf-8"))
    assert (config["stage"], config["lora"], config["attention"]) == ("aligned", None, "bidirectional")
    card = (runs / "align" / "README.md").read_text(encoding="utf-8")
    assert "MT-LLM after Stage 1" in card
    assert "| ind\\_Latn |" in card
    assert "fvu-by-language.svg" in [path.name for path in (runs / "align" / "figures").iterdir()]
    page = (runs / "align" / "report.html").read_text(encoding="utf-8")
    assert "FVU by language" in page
    # What a stage of a stack cannot have is not missing there.
    found = page.partition("At a glance")[2].partition("What was run")[0]
    for word in ("Overlap", "Ended", "Wrong language", "ollout", "cold start", "Time by phase", "ccuracy in training"):
        assert word not in found
    assert "Fraction of variance unexplained" in page and "Teacher</dt>" not in page


def test_a_language_that_is_read_as_another_is_said_by_a_stage(place, tmp_path, capsys):
    write(tmp_path / "parallel.jsonl", [{"text": f, "english": "a", "language": "nij"} for f in FOREIGN])
    more = [f"data.parallel={tmp_path}/parallel.jsonl", "max_steps=1", "max_length=6"]
    assert main(words("align", "stack/nllb-qwen3-0.6b/align", place, tmp_path / "run", *more)) == 0
    shown = capsys.readouterr().out
    assert "note: nij is read as ind_Latn (Ngaju, read as Indonesian)" in shown
    assert "rows of data.parallel were longer than max_length and were measured without their end" in shown


def test_a_stopped_stage_goes_on_and_a_finished_one_is_left_alone(runs, place, capsys):
    folder = runs / "align"
    more = [f"data.parallel={place}/parallel.jsonl", "probe_steps=1"]
    command = words("align", "stack/nllb-qwen3-0.6b/align", place, folder, *more)
    before = {path: path.read_bytes() for path in (folder / "model").glob("*.safetensors")}
    assert main(command) == 0
    assert "holds this run, finished" in capsys.readouterr().out
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    for gone in ("model", "checkpoints/step-2"):
        shutil.rmtree(folder / gone)
    assert main(command) == 0
    assert "going on from" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (folder / "model").glob("*.safetensors")} == before
    again = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["loss"] for line in again] == [json.loads(line)["loss"] for line in lines]
    assert main([*command, "learning_rate=1e-3"]) == 2
    error = capsys.readouterr().err
    assert "learning_rate" in error
    assert "use another --output, or --resume never (in Python another output_dir)" in error  # there is no other way


def test_a_finished_stage_whose_rows_or_earlier_stage_are_others_is_refused(place, tmp_path, capsys):
    aligned, folder, rows = tmp_path / "align", tmp_path / "run", tmp_path / "rows.jsonl"
    align = words("align", "stack/nllb-qwen3-0.6b/align", place, aligned)
    assert main(align) == 0
    command = words("finetune", "stack/nllb-qwen3-0.6b/nusax", place, folder, f"start={aligned}")
    source = next(word for word in command if word.startswith("data.train=")).partition("=")[2]
    shutil.copy(source, rows)
    command = [*command, f"data.train={rows}", "encoder.codes={id: ind_Latn}"]
    assert main(command) == 0
    rows.write_bytes(rows.read_bytes())  # touched, and the same
    assert main([*align, "--resume", "never"]) == 0  # the same bits once more
    capsys.readouterr()
    assert main(command) == 0
    assert "holds this run, finished" in capsys.readouterr().out
    assert main([*align, "learning_rate=1e-3", "--resume", "never"]) == 0
    assert main(command) == 2
    assert "is another now: start.model. --resume never" in capsys.readouterr().err
    rows.write_text("".join(rows.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    assert main(command) == 2
    assert "is another now: start.model, data.train." in capsys.readouterr().err


def test_a_parent_that_changed_under_its_name_makes_another_run(place, tmp_path, capsys):
    """The finished run was shown as this one's, and a stopped one went on with another LLM."""
    for name in ("encoder", "qwen3"):
        shutil.copytree(place / name, tmp_path / name)
    own = [f"encoder={tmp_path}/encoder", f"llm.model={tmp_path}/qwen3"]
    align = [*words("align", "stack/nllb-qwen3-0.6b/align", place, tmp_path / "align"), *own]
    assert main(align) == 0
    task = words("finetune", "stack/nllb-qwen3-0.6b/nusax", place, tmp_path / "task", f"start={tmp_path}/align")
    task = [*task, "encoder.codes={id: ind_Latn}", "llm.attention=bidirectional", *own]
    assert main([*task, "encoder=null"]) == 2
    check_error(capsys, f"command line: encoder: null, and {tmp_path}/align has {tmp_path}/encoder, with which")
    assert main(task) == 0
    card = (tmp_path / "task" / "README.md").read_text(encoding="utf-8").replace("\\_", "_")
    assert f"| encoder | {tmp_path}/encoder |" in card and f"| earlier stage | {tmp_path}/align |" in card
    assert "tuned teacher" not in card
    settings = tmp_path / "qwen3" / "config.json"
    before = settings.read_bytes()
    settings.write_bytes(before)  # touched, and the same
    capsys.readouterr()
    assert (main(align), main(task)) == (0, 0)
    assert capsys.readouterr().out.count("holds this run, finished") == 2
    settings.write_text(json.dumps(json.loads(before) | {"rms_norm_eps": 1e-3}), encoding="utf-8")
    for command in (align, task):
        assert main(command) == 2
        check_error(capsys, "is another now: llm.model. --resume never")
    settings.write_bytes(before)
    make_mt(seed=5).save_pretrained(tmp_path / "encoder")
    for command in (align, task):
        assert main(command) == 2
        check_error(capsys, "is another now: encoder.model. --resume never")
    shutil.rmtree(tmp_path / "align" / "model")
    assert main(align) == 2
    check_error(capsys, "belongs to a run that began with other models under the same names: encoder.model")


@pytest.mark.parametrize(
    ("extra", "code", "said"),
    [
        (["connector_strat=random"], 2, "did you mean 'connector_start'?"),
        (["connector_start=least_square"], 2, "did you mean 'least_squares'?"),
        (["encoder.modle=x"], 2, "did you mean 'encoder.model'?"),
        (["llm.attention=both"], 2, "bidirectional, causal"),
        (["data.language=kaz_Latn"], 3, "kaz_Cyrl"),
        (["data.language=null"], 3, "plain.jsonl:1: no language"),
        (["encoder=/no/such/model"], 2, "/no/such/model"),
        (["encoder=null"], 2, "encoder.model: name the encoder"),
        (["start=/no/such/run"], 2, "/no/such/run"),
        (["data.train=/no/such.jsonl"], 2, "no such file"),
        (["data.columns={texte: a}"], 2, "did you mean 'text'?"),
        (["lora.target_modules=[nothing]"], 2, "lora.target_modules"),
        (["max_length=2"], 2, "max_length: must be above 4"),
        (["--resume", "/no/such/checkpoint"], 2, "/no/such/checkpoint"),
    ],
)
def test_wrong_input_is_one_line_and_an_exit_code(extra, code, said, place, tmp_path, capsys):
    assert main([*words("align", "stack/nllb-llm2vec/align", place, tmp_path / "run"), *extra]) == code
    check_error(capsys, said)


@pytest.mark.parametrize(
    ("stage", "extra", "code", "said"),
    [
        ("teach", ["task.labels=[]"], 2, "task.labels"),
        ("teach", ["data.columns={text: premise, label: no}"], 2, "labelled.jsonl: no row has a column 'no'"),
        ("teach", ["task.labels=[one, two]"], 3, "is not a number from 0 to 1"),
        ("distill", ["teacher=null", "start=null"], 2, "teacher.model: name the run"),
        ("distill", ["teacher=/no/such/run", "start=null"], 2, "/no/such/run"),
    ],
)
def test_a_wrong_task_is_one_line_and_an_exit_code(stage, extra, code, said, place, tmp_path, capsys):
    assert main([*words(stage, "stack/nllb-llm2vec/mnli", place, tmp_path / "run"), *extra]) == code
    check_error(capsys, said)


def test_a_stage_without_a_head_and_a_recipe_of_another_verb_are_refused(runs, place, tmp_path, capsys):
    assert main(["stack", "eval", str(runs / "align"), f"{place}/labelled.jsonl"]) == 2
    check_error(capsys, "at the stage 'aligned' and has no head")
    assert main(["train", "stack/nllb-llm2vec/mnli"]) == 2
    check_error(capsys, "is a recipe of `dudi stack`")
    assert main(["stack", "align", "mini/dudi"]) == 2
    check_error(capsys, "mini/dudi: is a recipe of `dudi train`")
    own = tmp_path / "own.yaml"
    for text, command, theirs in (
        (
            "encoder: a\nllm: b\ndata: c\n",
            ["plan", str(own)],
            "`dudi stack` (adapt, align, teach, distill, finetune; dudi",
        ),
        ("llm.model: b\ndata: c\n", ["train", str(own)], "`dudi stack`"),
        ("student: b\ndata: c\n", ["stack", "align", str(own)], "`dudi train`"),
    ):
        own.write_text(text, encoding="utf-8")
        assert main(command) == 2
        check_error(capsys, f"own.yaml: is a recipe of {theirs}")
    assert set(STACK_SECTIONS) <= STACK.sections.keys() - SECTIONS.keys()
    assert not {*STUDENT_SECTIONS} & STACK.sections.keys()


def check_error(capsys, said):
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "Traceback" not in error
    assert len(error.splitlines()) <= 2, error


@pytest.mark.parametrize(
    ("stage", "name", "wrong", "said"),
    [
        ("align", "stack/nllb-llm2vec/align", "encoder={}/nowhere", "no such folder of a model"),
        ("align", "stack/nllb-llm2vec/align", "llm.model={}/nowhere", "no such folder of a model"),
        ("align", "stack/nllb-llm2vec/align", "data.train={}/nowhere.jsonl", "no such file or folder"),
        ("align", "stack/nllb-llm2vec/align", "data.parallel={}/nowhere.jsonl", "no such file or folder"),
        ("distill", "stack/nllb-llm2vec/mnli", "teacher={}/nowhere", "no such folder"),
        ("finetune", "stack/nllb-llm2vec/mnli", "start={}/nowhere", "no such folder"),
        ("finetune", "stack/nllb-llm2vec/mnli", "data.eval={}/nowhere.jsonl", "no such file or folder"),
    ],
)
def test_a_dry_run_looks_for_what_is_named(stage, name, wrong, said, place, tmp_path, capsys):
    command = words(stage, name, place, tmp_path / "run", "--dry-run")
    more = [] if wrong.startswith("start") else ["start=null"]
    assert main([*command, *more, wrong.format(place)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_dry_run_finds_an_llm_of_which_there_is_a_gguf_file_alone(place, tmp_path, capsys):
    """It asked for safetensors, and refused what the stage itself reads."""
    file = tmp_path / "llm" / "Little.gguf"
    file.parent.mkdir()
    assert main(["export", "package:dudi/mini/llama", "--gguf", "F32", "--output", str(file)]) == 0
    command = words("align", "stack/nllb-llm2vec/align", place, tmp_path / "run", "--dry-run")
    given = [*command, "start=null", f"llm.model={file.parent}"]
    assert main([*given, "llm.gguf_file=Little.gguf"]) == 0
    assert f"llm      {file.parent}" in capsys.readouterr().out
    assert main([*given, "llm.gguf_file=Other.gguf"]) == 2
    check_error(capsys, "holds no weights (Other.gguf)")


@pytest.mark.parametrize(
    ("stage", "extra", "code", "said"),
    [
        ("align", ["encoder={}/qwen3"], 2, "encoder: a Qwen3ForCausalLM reads from left to right and is no encoder"),
        ("align", ["encoder={}/short", "max_length=64"], 2, "XLMRobertaModel has 32 positions, and max_length makes"),
        ("align", ["llm.model={}/gpt2", "max_length=300"], 2, "GPT2Model has 256 positions, and max_length makes"),
        ("align", ["llm.model={}/gpt2", "max_length=150", "llm_tokens=true"], 2, "GPT2Model has 256 positions, and"),
        ("teach", ["llm.model={}/gpt2", "max_length=300"], 2, "GPT2Model has 256 positions, and max_length makes"),
        ("finetune", ["llm.model={}/gpt2", "max_length=300"], 0, ""),
        ("align", ["data.language=xx_Xxxx"], 3, "'xx_Xxxx' is no source language of this encoder's tokenizer"),
        ("finetune", ["data.language=xx_Xxxx"], 3, "'xx_Xxxx' is no source language of this encoder's tokenizer"),
        ("align", ["llm.adapters=[{}/qwen3]"], 2, "qwen3 has no adapter_config.json"),
        ("align", ["encoder={}/short", "max_length=30"], 0, ""),
        ("finetune", ["task.kind=generation", "data.columns={answer: label}"], 2, "both directions (llm.attention:"),
        ("finetune", ["task.kind=generation", "data.columns={answer: label}", "llm.attention=causal"], 0, ""),
    ],
)
def test_a_dry_run_holds_configs_against_keys_and_rows(stage, extra, code, said, place, tmp_path, capsys):
    """All this was found after the weights had been loaded, and some of it in the middle of the way."""
    if not (place / "short").exists():
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        config = XLMRobertaConfig(vocab_size=512, max_position_embeddings=34, **shape)
        XLMRobertaModel(config).save_pretrained(place / "short")
        make_llm_tokenizer().save_pretrained(place / "short")
    name = "stack/nllb-qwen3-0.6b/align" if stage == "align" else "stack/nllb-qwen3-0.6b/mnli"
    given = [word.replace("{}", str(place)) for word in ["start=null", *extra]]
    assert main([*words(stage, name, place, tmp_path / "run", "--dry-run"), *given]) == code
    check_error(capsys, said)


def test_a_dry_run_looks_into_an_earlier_stage(runs, place, tmp_path, capsys):
    command = words("finetune", "stack/nllb-qwen3-0.6b/mnli", place, tmp_path / "run", "--dry-run")
    assert main([*command, f"start={runs}/align"]) == 0
    assert main([*command, f"start={runs}/align", "data.language=xx"]) == 3
    check_error(capsys, "'xx' is no source language")
    assert main([*command, f"start={runs}/align", "data.language=xx", "encoder.codes={xx: ind_Latn}"]) == 0


@pytest.mark.parametrize(("line", "rank"), [("", 16), ("lora: {r: 4}", 4), ("lora: null", None)])
def test_a_recipe_that_says_nothing_of_lora_trains_an_adapter(line, rank, tmp_path):
    """It trained the whole LLM in fp32, which is not the paper's method and needs ten times the memory."""
    file = tmp_path / "own.yaml"
    file.write_text(f"encoder: a\nllm: b\ndata: rows.jsonl\n{line}\n", encoding="utf-8")
    section = load_stack_config(file, "align").lora
    assert (None if section is None else section.r) == rank


def test_a_task_s_rows_are_where_prepare_writes_them():
    """`indonlp/NusaX-senti` is a script that `datasets` runs no more, and Belebele's file was written by no command."""
    for name in RECIPES:
        last = name.rpartition("/")[2]
        if last in ("nusax", "belebele") and "/real/" not in name:
            data = load_stack_config(name, "teach").data
            assert (data.train, data.eval) == tuple(f"data/{last}/{part}/eng_Latn.jsonl" for part in ("train", "dev"))


def test_the_paper_s_recipes_clip_no_gradient_and_the_norm_is_measured_all_the_same(runs):
    for name in (name for name in RECIPES if not name.startswith("stack/real")):
        stage = stages_of(name)[0]
        assert stage == "adapt" or load_stack_config(name, stage).settings["max_grad_norm"] == 0, name
    for run in ("align", "finetune"):
        lines = [json.loads(line) for line in (runs / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        assert all(line["grad_norm"] > 0 for line in lines)


# ---- what a stage does not read

UNREAD = [
    ("teach", "mask_share=0.5", "adapt"),
    ("teach", "state_drop=0.3", "align"),
    ("teach", "bitext_share=0.1", "align"),
    ("teach", "probe_steps=3", "align"),
    ("teach", "data.parallel=nowhere.jsonl", "align"),
    ("teach", "llm_tokens=true", "align or distill or finetune"),
    ("teach", "train_connector=false", "distill or finetune"),
    ("align", "mask_share=0.5", "adapt"),
    ("align", "train_connector=false", "distill or finetune"),
    ("align", "data.eval=rows.jsonl", "teach or distill or finetune"),
    ("adapt", "connector_start=random", "align"),
    ("adapt", "data={train: rows.jsonl, bitext: pairs.jsonl}", "align"),
    ("distill", "merge_lora=false", "align"),
    ("finetune", "start_rows=8", "align"),
]


@pytest.fixture
def own(tmp_path):
    """A recipe file of no stage."""
    file = tmp_path / "own.yaml"
    file.write_text("encoder: a\nllm: b\ndata: rows.jsonl\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(("stage", "word", "belongs"), UNREAD)
def test_a_word_that_a_stage_does_not_read_is_an_error(stage, word, belongs, own):
    key, _, value = word.partition("=")
    key = "data.bitext" if key == "data" else key
    said = f"^command line: {key}: {stage} does not read it: it belongs to {belongs}; take it out$"
    with pytest.raises(ConfigError, match=said):
        load_stack_config(own, stage, [word])
    for reader in belongs.split(" or "):
        load_stack_config(own, reader, [word])
    if "." not in key:
        with pytest.raises(ConfigError, match=f"^{key}: {stage} does not read it: it belongs to {belongs}"):
            StackArguments(output_dir="out", use_cpu=True, stage=stage, **{key: yaml.safe_load(value)})


def test_a_file_serves_several_stages_and_a_default_says_nothing(own):
    own.write_text(own.read_text(encoding="utf-8") + "train_connector: false\nmask_share: 0.5\nprobe_steps: 3\n")
    for stage in ("adapt", "align", "teach", "distill", "finetune"):
        config = load_stack_config(own, stage, ["state_drop=0", "data.parallel=null", "connector_start=least_squares"])
        args = config.stack_arguments("out")
        assert (args.stage, args.train_connector, args.mask_share, args.probe_steps) == (stage, False, 0.5, 3)
        again = own.with_name(f"{stage}.yaml")
        again.write_text(config.resolved_yaml(), encoding="utf-8")
        assert load_stack_config(again, stage) == config


def test_the_rows_of_a_task_are_words_for_every_stage(own, tmp_path):
    shared = ["task.labels=[a, b]", "data.train=x.jsonl", "data.eval=y.jsonl", "data.language=null"]
    assert read_words("finetune", shared) == shared
    assert read_words("align", shared) == [*shared[:2], shared[3]]
    assert load_stack_config(own, "align", read_words("align", shared)).data.eval is None


@pytest.mark.parametrize("stage", ["adapt", "align"])
@pytest.mark.parametrize("line", ["eval_strategy: epoch", "eval_on_start: true"])
def test_a_stage_without_a_task_evaluates_nothing(stage, line, own):
    own.write_text(f"{line}\nencoder: a\nllm: b\ndata: {{train: a.jsonl, eval: b.jsonl}}\n", encoding="utf-8")
    key = line.partition(":")[0]
    with pytest.raises(ConfigError, match=rf"own.yaml:1: {key}: {stage} evaluates nothing during training; set {key}="):
        load_stack_config(own, stage)
    load_stack_config(own, "finetune")


@pytest.mark.parametrize(
    ("file", "folder"), [("align.yaml", "align"), ("mine.yaml", "mine-align"), ("my-align.yaml", "my-align")]
)
def test_the_stage_stands_once_in_the_name_of_a_run(file, folder, tmp_path):
    (tmp_path / file).write_text("encoder: a\nllm: b\ndata: rows.jsonl\n", encoding="utf-8")
    assert default_output(load_stack_config(tmp_path / file, "align")).as_posix() == f"runs/{folder}"


def test_dry_run_and_the_flavours_of_stage_1(place, tmp_path, capsys):
    command = words("align", "stack/nllb-llm2vec/align", place, tmp_path / "run", "--dry-run")
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "connector_start: random" in shown
    assert "recipes/stack/base/stage1.yaml:" in shown
    assert main(["stack", "distill", "stack/nllb-llm2vec/mnli", "--recipe", "improved"]) == 2
    check_error(capsys, "--recipe: belongs to dudi stack align")
    assert main([*command, "--recipe", "improved"]) == 0
    shown = capsys.readouterr().out
    assert "connector_start: least_squares" in shown
    assert "merge_lora: true" in shown
    assert not (tmp_path / "run").exists()
