"""`teacher_cache`: what is read is what the teacher gave, to the bit; all that it depends on makes another folder."""

import pytest
import torch
from safetensors.torch import load_file
from test_several_teachers import first_teacher, second_teacher
from test_trainer import metrics_of

from dudi import DudiTrainer
from dudi.distill import passes
from dudi.distill.passes import completion_states
from dudi.errors import ConfigError
from dudi.plan import estimate
from dudi.program.cli import main
from dudi.training import checkpoints
from helpers import CHATML, ROWS, make_args, make_model, make_tokenizer
from tokenizer_kinds import sentence_piece

EPOCHS = {"max_steps": 12, "cold_start": "none"}
"""Three of them: 32 rows are four steps."""
ALONE = {**EPOCHS, "train_sampling_strategy": "sequential", "targets": "gold"}
"""The targets alone, in the same micro-batches every time."""


def make_trainer(folder, cache, method="dudi", teacher=None, tokenizer=None, rows=ROWS, teacher_tokenizer=None, **keys):
    several = teacher if isinstance(teacher, dict) else None
    return DudiTrainer(
        make_model(seed=1),
        None if several else teacher or first_teacher(),
        make_args(folder, method, **({} if cache is None else {"teacher_cache": str(cache)}), **keys),
        rows,
        processing_class=tokenizer or make_tokenizer(),
        teacher_processing_class=teacher_tokenizer,
        teachers=several,
    )


def ran(*arguments, **keys):
    trainer = make_trainer(*arguments, **keys)
    trainer.train()
    return [record["loss"] for record in metrics_of(trainer.args.folder)], [
        parameter.detach().clone() for parameter in trainer.model.parameters()
    ]


def same(one, other):
    return one[0] == other[0] and all(map(torch.equal, one[1], other[1]))


def folders(cache):
    return sorted(path.name for path in cache.iterdir() if (path / checkpoints.MANIFEST).is_file())


@pytest.fixture
def passed_over(monkeypatch):
    """Sequences that any model passed over, by kind of call."""
    counts = []
    monkeypatch.setattr(
        passes,
        "completion_states",
        lambda model, pairs: (counts.append((model, len(pairs))), completion_states(model, pairs))[1],
    )
    return counts


@pytest.mark.parametrize("teacher", [None, "several"])
def test_with_and_without_it_the_bits_are_the_same(tmp_path, tokenizer, teacher):
    teachers = {"default": first_teacher(), "my": second_teacher()} if teacher else first_teacher()
    runs = [
        ran(tmp_path / name, cache, "seqkd", teachers, tokenizer, **ALONE)
        for name, cache in (("without", None), ("written", tmp_path / "cache"), ("read", tmp_path / "cache"))
    ]
    assert same(runs[0], runs[1]) and same(runs[0], runs[2])
    assert len(folders(tmp_path / "cache")) == 1


@pytest.mark.slow
def test_shuffled_and_beside_rollouts_it_is_the_same_run_up_to_rounding(tmp_path, tokenizer):
    cache = tmp_path / "cache"
    without, written, read = (
        ran(tmp_path / name, place, "dudi", None, tokenizer, **EPOCHS)
        for name, place in (("without", None), ("written", cache), ("read", cache))
    )
    assert same(written, read)
    assert written[0][:4] == pytest.approx(without[0][:4], rel=1e-4)


def test_what_is_kept_is_what_the_teacher_gave(tmp_path, tokenizer):
    trainer = make_trainer(tmp_path / "run", tmp_path / "cache", "seqkd", None, tokenizer, **ALONE)
    trainer.prepare()
    (folder,) = folders(tmp_path / "cache")
    kept = {}
    for file in (tmp_path / "cache" / folder).glob("*.safetensors"):
        kept |= load_file(file)
    examples, size = trainer.setup.train.examples, trainer.args.per_device_train_batch_size
    assert len(kept) == len(examples)
    for start in range(0, len(examples), size):
        part = examples[start : start + size]
        pairs = [(one.teacher_prompt, one.completion) for one in part]
        with torch.no_grad():
            given = completion_states(trainer.setup.teacher, pairs).split([len(one.completion) for one in part])
        for place, states in enumerate(given, start=start):
            assert torch.equal(kept[f"{place:08d}"], states)


def test_the_teacher_reads_each_target_once(tmp_path, tokenizer, passed_over):
    teacher = first_teacher()
    make_trainer(tmp_path / "run", tmp_path / "cache", "seqkd", teacher, tokenizer, **ALONE).train()
    assert sum(count for model, count in passed_over if model is teacher) == len(ROWS)
    passed_over.clear()
    make_trainer(tmp_path / "again", tmp_path / "cache", "seqkd", teacher, tokenizer, **ALONE).train()
    assert not [count for model, count in passed_over if model is teacher]


def test_rows_of_evaluation_are_read_by_the_teacher(tmp_path, tokenizer):
    def evaluated(name, cache):
        trainer = make_trainer(tmp_path / name, cache, "seqkd", None, tokenizer, **ALONE)
        trainer.train()
        return trainer.evaluate([{**row, "completion": row["completion"] + " ok"} for row in ROWS[:8]])["eval_loss"]

    assert evaluated("with", tmp_path / "cache") == evaluated("without", None)


def test_a_run_that_goes_on_ends_with_the_same_bits(tmp_path, tokenizer):
    keys = {**EPOCHS, "save_strategy": "steps", "save_steps": 6}
    whole = ran(tmp_path / "run", tmp_path / "cache", "dudi", None, tokenizer, **keys)
    again = make_trainer(tmp_path / "run", tmp_path / "cache", "dudi", None, tokenizer, **keys)
    half = str(tmp_path / "run" / "checkpoints" / "step-6")
    again.train(resume_from_checkpoint=half)
    assert all(map(torch.equal, whole[1], again.model.parameters()))
    with pytest.raises(ConfigError, match="teacher_states"):
        make_trainer(tmp_path / "other", tmp_path / "cache", "dudi", None, tokenizer, **keys).check_resume(
            _saved_without(tmp_path, tokenizer, keys)
        )


def _saved_without(tmp_path, tokenizer, keys):
    make_trainer(tmp_path / "bare", None, "dudi", None, tokenizer, **keys).train()
    return tmp_path / "bare" / "checkpoints" / "step-6"


def test_whatever_it_depends_on_makes_another(tmp_path, tokenizer):
    cache = tmp_path / "cache"
    other_template = make_tokenizer(template=CHATML.replace("{{ m['role'] }}\n", "{{ m['role'] }}: "))
    changed = [
        {},
        {"teacher": second_teacher()},
        {"teacher_tokenizer": other_template},
        {"teacher": first_teacher().to(torch.bfloat16)},
        {"rows": ROWS[:-1]},
        {"per_device_train_batch_size": 2},
        {"teacher": {"default": first_teacher(), "my": second_teacher()}},
    ]
    seen = []
    for number, other in enumerate(changed):
        keys = {**ALONE, "max_steps": 1, **other}
        teacher = keys.pop("teacher", None)
        make_trainer(tmp_path / str(number), cache, "seqkd", teacher, tokenizer, **keys).prepare()
        seen.append(len(folders(cache)))
    assert seen == list(range(1, len(changed) + 1))
    make_trainer(tmp_path / "free", cache, "seqkd", None, tokenizer, **ALONE, learning_rate=1e-5, seed=8).prepare()
    assert len(folders(cache)) == len(changed)  # what they do not depend on


def test_what_is_damaged_is_made_anew(tmp_path, tokenizer):
    cache = tmp_path / "cache"
    whole = ran(tmp_path / "a", cache, "seqkd", None, tokenizer, **ALONE)
    (file,) = (cache / folders(cache)[0]).glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    assert same(whole, ran(tmp_path / "b", cache, "seqkd", None, tokenizer, **ALONE))
    assert file.read_bytes() != bytes(content)


def test_a_teacher_with_its_own_tokens(tmp_path, tokenizer):
    piece = sentence_piece()
    teacher = make_model(seed=2, hidden_size=48, vocab_size=len(piece) + 28)
    keys = {**ALONE, "teacher_tokenizer": piece}
    without, kept = (
        ran(tmp_path / n, c, "seqkd", teacher, tokenizer, **keys) for n, c in (("a", None), ("b", tmp_path / "c"))
    )
    assert same(without, kept)


def test_an_offloaded_teacher_stays_where_it_is(tmp_path, tokenizer, monkeypatch):
    from dudi.models.frozen import OffloadedModel

    opened = []
    plain = OffloadedModel.opened
    monkeypatch.setattr(OffloadedModel, "opened", lambda self: (opened.append(self), plain(self))[1])
    without = ran(tmp_path / "a", None, "seqkd", None, tokenizer, **ALONE)
    kept = ran(tmp_path / "b", tmp_path / "c", "seqkd", None, tokenizer, teacher_offload="cpu", **ALONE)
    assert same(without, kept) and len(opened) == 1  # for the states, and never again


@pytest.mark.parametrize(
    ("method", "keys"),
    [("dudi", {"without": ["off_policy"]}), ("seqkd", {"off_policy_loss": "cross_entropy"})],
)
def test_what_is_refused(tmp_path, method, keys):
    with pytest.raises(ConfigError, match="teacher_cache: "):
        make_args(tmp_path, method, teacher_cache="x", **keys)


def test_the_plan_says_what_it_takes_and_saves(tmp_path):
    student, teacher = make_model(seed=1).config, first_teacher().config
    made = {
        name: estimate(
            student,
            teacher,
            make_args(tmp_path, "gkd", mixing="sum", max_steps=-1, **keys),
            gpu="T4",
            rows=800,
            dtype="bfloat16",
        )
        for name, keys in (("without", {}), ("with", {"teacher_cache": "x"}))
    }
    assert made["with"].flops["teacher"] < made["without"].flops["teacher"]
    assert made["with"].flops["student"] == made["without"].flops["student"]
    assert any("states" in stage.name and stage.hours > 0 for stage in made["with"].stages)
    (note,) = [note for note in made["with"].notes if note.startswith("teacher_cache")]
    tokens = 800 * made["with"].work.lengths.completion
    assert f"{tokens * 48 * 2 / 1e9:,.2f} GB on the disk for {tokens:,} tokens" in note
    assert not any(note.startswith("teacher_cache") for note in made["without"].notes)


def test_a_dry_run_counts_the_rows_own_tokens(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["teacher_cache=kept", "languages=[id, my]", "data.tasks=[currency]", "data.rows_per_language=66"]
    assert main(["train", "mini/gkd", *words, "use_cpu=true", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "tokens of targets" in said and "MB in kept" in said and "teacher_cache: up to" in said
    assert not (tmp_path / "kept").exists()
