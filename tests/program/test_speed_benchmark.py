"""What the benchmark counts and writes; that it runs is for `make bench`."""

import dataclasses
import json
import random

import pytest
import torch
from benchmarks import aims, conductor, page, profile, projection, report, soundness
from benchmarks.clocks import watch
from benchmarks.contestants import CONTESTANTS, compared_with, make_parts
from benchmarks.floor import floor_seconds, forward_flops, parts
from benchmarks.parts import run_part
from benchmarks.sizes import SIZES, Size
from benchmarks.work import adapter_parameters, gold_lengths, make_config, make_rows, make_tokenizer, prompt_lengths
from transformers import Trainer

from dudi.models.shape import shape_of


@pytest.fixture
def size() -> Size:
    return SIZES["tiny-projection"]


def test_rows_have_the_lengths_that_were_asked_for(size):
    tokenizer, rows = make_tokenizer(size), make_rows(size)
    assert len(rows) == (size.steps + 1) * size.rows  # the step that warms up has its own
    for step in range(size.steps + 1):
        of_step = rows[step * size.rows : (step + 1) * size.rows]
        for row, prompt, gold in zip(of_step, prompt_lengths(size, step), gold_lengths(size, step), strict=True):
            message = [{"role": "user", "content": row["prompt"]}]
            read = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
            assert len(tokenizer(read).input_ids) == prompt
            assert len(tokenizer(row["completion"]).input_ids) == gold - 1
    assert sorted(gold_lengths(size, 0)) == [4, 24]


def test_no_row_is_read_twice_and_every_step_has_the_same_lengths(size):
    size = dataclasses.replace(size, batch=4, steps=9)
    rows = make_rows(size)
    for key in ("id", "prompt", "completion"):
        assert len({row[key] for row in rows}) == len(rows)
    steps = range(size.steps + 1)
    assert len({tuple(sorted(prompt_lengths(size, step))) for step in steps}) == 1
    assert len({tuple(sorted(gold_lengths(size, step))) for step in steps}) == 1
    pairs = {tuple(sorted(zip(prompt_lengths(size, s), gold_lengths(size, s), strict=True))) for s in steps}
    assert len(pairs) > 1  # which prompt goes with which ground truth


def built(name: str, size: Size) -> Trainer:
    return CONTESTANTS[name].build(make_parts(name, size, make_tokenizer(size), make_rows(size)))


@pytest.mark.parametrize("name", ["dudi", "dudi-gkd"])
def test_the_clock_leaves_ours_as_users_have_it(name, size):
    """A step that somebody has wrapped has its head's gradient from autograd, which costs a table of it."""
    trainer = built(name, size)
    watch(trainer, None, ours=True)
    assert trainer._multiplies_nothing()


def prompts_of(batch, size: Size) -> list[str]:
    """The prompts of a batch as whatever loader it is of has them."""
    if isinstance(batch, dict):  # GKDTrainer's: token ids, without the template's
        words = [make_tokenizer(size).decode(ids).split() for ids in batch["prompts"]]
        return [" ".join(word for word in row if word.startswith("w")) for row in words]
    return [one["prompt"][0]["content"] if isinstance(one, dict) else one.row.prompt[0]["content"] for one in batch]


@pytest.mark.parametrize("name", ["trl-gkd-tuned", "trl-distillation-tuned", "trl-sdft-full", "dudi-gkd", "dudi"])
def test_everybody_reads_the_same_rows_in_the_same_order(name):
    size = dataclasses.replace(SIZES["tiny"], accumulation=2)
    batches = built(name, size).get_train_dataloader()
    read = [prompt for batch in batches for prompt in prompts_of(batch, size)]
    assert list(dict.fromkeys(read)) == [row["prompt"] for row in make_rows(size)]  # TRL's loaders repeat a step's rows


@pytest.mark.parametrize("name", ["trl-gkd-tuned", "trl-distillation-tuned", "dudi-gkd"])
def test_everybody_trains_the_same_adapter_under_the_same_teacher(name):
    size = dataclasses.replace(SIZES["tiny"], lora=4, teacher_dtype="bfloat16")
    parts_ = make_parts(name, size, make_tokenizer(size), make_rows(size))
    trainer = CONTESTANTS[name].build(parts_)
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == adapter_parameters(size)
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert {p.dtype for p in parts_.teacher.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("name", "student", "teacher"),
    [("real-pair", 494_032_768, 1_543_714_304), ("vocabulary-262k", 268_098_176, 268_098_176)],
)
def test_real_shapes_have_the_parameters_of_the_models_that_they_are_named_after(name, student, teacher):
    size = SIZES[name]
    assert shape_of(make_config(size, size.student)).parameters == student
    assert shape_of(make_config(size, size.teacher)).parameters == teacher


def test_a_worker_is_told_what_differs(size):
    changed = dataclasses.replace(size, batch=7, vocabulary=600)
    assert changed.changes() == {"batch": 7, "vocabulary": 600}
    assert dataclasses.replace(size, **json.loads(json.dumps(changed.changes()))) == changed


@pytest.mark.parametrize("together", [2, 3, 4, 16])
def test_a_sitting_holds_one_method_and_what_it_is_compared_with(together):
    found = conductor.sittings(list(CONTESTANTS), together)
    for sitting in found:
        assert len(sitting) <= together
        assert len({compared_with(name) for name in sitting}) == 1
        assert compared_with(sitting[0]) in sitting
    for name in CONTESTANTS:
        if compared_with(name) != name:
            assert sum(name in sitting for sitting in found) == 1
    assert len(conductor.sittings(["dudi-gkd", "dudi"], together)) == 1


def test_without_what_they_are_compared_with_contestants_sit_among_themselves():
    assert conductor.sittings(["dudi"], 3) == [("dudi",)]
    assert conductor.sittings(["dudi-gkd"], 3) == [("dudi-gkd",)]
    assert conductor.sittings(["trl-gkd", "trl-gkd-tuned"], 3) == [("trl-gkd", "trl-gkd-tuned")]


def test_alone_they_come_forwards_and_backwards():
    assert conductor.sittings(["trl-gkd", "dudi-gkd"], 1) == [("trl-gkd",), ("dudi-gkd",), ("dudi-gkd",), ("trl-gkd",)]


def test_sittings_are_numbered_and_who_failed_stays_away(size, monkeypatch):
    seated = []

    def start(name, _):
        seated.append(name)
        if name == "trl-gkd":
            raise conductor.Failed("no memory")
        return name

    monkeypatch.setattr(conductor, "start", start)
    monkeypatch.setattr(conductor, "take_turns", lambda workers, *_: {name: [{"seconds": 1.0}] for name in workers})
    size = dataclasses.replace(size, together=2)
    taken, failed = conductor.run(["trl-gkd", "trl-gkd-tuned", "dudi-gkd", "dudi"], size)
    assert seated == ["trl-gkd", "dudi-gkd", "trl-gkd-tuned", "dudi-gkd", "dudi-gkd", "dudi"]
    assert {name: [step["sitting"] for step in steps] for name, steps in taken.items()} == {
        "trl-gkd-tuned": [1],
        "dudi-gkd": [0, 1, 2],
        "dudi": [2],
    }
    assert failed == {"trl-gkd": "no memory"}


def steps(size: Size, seconds: float, kinds: tuple[str, ...], sitting: int = 0) -> list[dict]:
    sequences = {kind: [(20, size.new, 30)] * size.rows for kind in kinds}
    phases = {"rollout": seconds / 2, "teacher": seconds / 8, "reference": seconds / 8, "student": seconds / 4}
    return [
        {
            "seconds": seconds,
            "cpu_seconds": seconds,
            "phases": phases,
            "above": 10,
            "weights": 30,
            "sequences": sequences,
            "sitting": sitting,
        }
    ] * size.steps


@pytest.fixture
def result(size):
    taken = {
        "dudi-gkd": steps(size, 1.0, ("verbalized",)) + steps(size, 1.5, ("verbalized",), sitting=1),
        "dudi": steps(size, 3.0, ("gold", "plain", "verbalized"), sitting=1),
        "trl-gkd-tuned": steps(size, 4.0, ()),
    }
    machine = {
        "machine": {"cpu": "a CPU", "cores": 2, "threads": 1, "load": 0.0},
        "python": "3",
        "versions": {},
        "matrix_flops_per_second": 1e9,
        "teacher_flops_per_second": 1e9,
        "copy_bytes_per_second": 1e9,
    }
    return json.loads(json.dumps(report.summary(size, machine, taken, {"trl-gkd": "no memory"})))


def test_ratios_floors_and_failures_are_on_the_page(result):
    text = report.page(result)
    assert result["contestants"]["trl-gkd-tuned"]["ours_faster"]["median"] == 4.0
    assert "| TRL GKD, tuned | 4.00 (4.00 - 4.00) | 0.50 | 4.00x (4.00 - 4.00)" in text
    assert "| TRL GKD, as it comes | failed |" in text
    assert "floor of `dudi`" in text
    assert result["contestants"]["dudi-gkd"]["seconds"] == {"median": 1.25, "min": 1.0, "max": 1.5}


def test_a_ratio_is_of_the_sitting_that_was_shared(result):
    assert result["contestants"]["trl-gkd-tuned"]["ours_faster"] == {"median": 4.0, "min": 4.0, "max": 4.0}
    assert result["dudi_over_gkd"]["seconds"] == {"median": 2.0, "min": 2.0, "max": 2.0}


def test_the_page_says_who_sat_together(result):
    assert "Sittings of up to 16 contestants, which take 2 steps each in turn" in report.page(result)
    alone = {**result, "size": {**result["size"], "together": 1}}
    assert "One contestant at a time, twice 2 steps each" in report.page(alone)


def test_the_floor_is_the_forward_pass_three_times(size):
    student = shape_of(make_config(size, size.student), "student")
    sequences = {"verbalized": [(20, 8, 30)]}
    trained = next(p for p in parts("gkd", sequences, student, None, 4, 1) if p.phase == "student")
    assert trained.flops == 3 * forward_flops(student, 20, 8)


def test_under_an_adapter_the_frozen_weights_have_no_gradient(size):
    student = shape_of(make_config(size, size.student), "student")
    sequences = {"verbalized": [(20, 8, 30)]}
    done = {p.phase: p for p in parts("gkd", sequences, student, student, 4, 1, teacher_element=2, adapter=100)}
    assert done["student"].flops == 2 * forward_flops(student, 20, 8) + 6 * 100 * 28
    assert done["optimizer"].flops == 12 * 100
    assert done["teacher"].bytes * 4 == done["student"].bytes  # half the bytes, once and not twice


def test_the_teachers_passes_have_a_rate_of_their_own(size):
    student = shape_of(make_config(size, size.student), "student")
    done = parts("gkd", {"verbalized": [(20, 8, 30)]}, student, student, 4, 1)
    one, other = (floor_seconds(done, 1e6, 1e18, rate) for rate in (1e6, 2e6))
    assert one["teacher"] == pytest.approx(2 * other["teacher"])
    assert one["student"] == other["student"]


def test_a_profile_accounts_for_the_whole_step():
    account = profile.Account(seconds=2.0, products=1.0, flops=1e9).as_dict()
    rates = {"matrix_flops_per_second": 1e9, "teacher_flops_per_second": 4e9}
    lines = profile.page({"seconds": 5.0, "phases": {"teacher": account, "student": account}, **rates})
    assert "1 GFLOP/s (25%)" in next(line for line in lines if line.startswith("| teacher"))
    assert "1 GFLOP/s (100%)" in next(line for line in lines if line.startswith("| student"))
    assert any(line.startswith("| outside: optimizer, clipping, rows | 1.00 |") for line in lines)


def test_projection_is_visits_over_the_rate(result):
    found = projection.project(result)
    rate = 2 / 3.0  # two rows in three seconds
    assert found["hours"] == pytest.approx(84_000 / rate / 3600)
    assert found["reference_hours"] == pytest.approx(28_000 * (3.0 / 8) / 2 / 3600)
    assert found["passes_share_of_rate"] > 0
    text = "\n".join(projection.page(result, found))
    assert "84,000 visits" in text
    assert "4 to 24 tokens" in text


def test_the_table_of_aims_is_filled_from_what_is_there(tmp_path, result):
    (tmp_path / "speed-cpu-small.json").write_text(json.dumps(result))
    (tmp_path / "speed-dudi.json").write_text(json.dumps({**result, "dudi_over_gkd": None}))
    first, second, *others = page.table(tmp_path, page.AIMS)[2:]
    assert first == (
        "| GKD over TRL `GKDTrainer`, tuned | 3.5x | 4.00x, the peak 1.00x above the models, 1.00x with them "
        "([table](speed-cpu-small.md)) |"
    )
    assert second.endswith("| - |")  # that contestant did not run
    assert all(line.endswith("| - |") for line in others)


def test_bench_writes_each_part_and_prints_the_table(tmp_path, result, monkeypatch, capsys):
    asked = []

    def compare(names, size, measured):
        asked.append((size.name, names))
        if "dudi" in names:
            raise conductor.Failed("no memory")
        return result, "a page"

    monkeypatch.setattr(aims, "compare", compare)
    monkeypatch.setattr(aims.machine, "describe", lambda size: {"of": size.name})
    monkeypatch.setattr("sys.argv", ["aims", "--output", str(tmp_path), "--tiny", "--parts", "cpu-small", "dudi"])
    aims.main()
    assert asked == [
        ("tiny", ("trl-gkd-tuned", "trl-distillation-tuned", "dudi-gkd")),
        ("tiny", ("dudi-gkd", "dudi")),
    ]
    assert (tmp_path / "speed-cpu-small.md").read_text() == "a page\n"
    assert "no memory" in json.loads((tmp_path / "speed-dudi.json").read_text())["failed"]
    assert "| GKD over TRL `GKDTrainer`, tuned | 3.5x | 4.00x" in capsys.readouterr().out


def test_every_aim_has_a_part_that_measures_it():
    assert {name for _, _, name, _ in page.AIMS} == {f"speed-{name}.json" for name in aims.PARTS}


def test_a_part_that_fails_is_written_down(tmp_path):
    def work():
        raise conductor.Failed("it ended")

    text = run_part("one", work, tmp_path / "deep" / "one.json", {"load": 1.0})
    assert "Failed: it ended" in text
    written = json.loads((tmp_path / "deep" / "one.json").read_text())
    assert (written["part"], written["load"]) == ("one", 1.0)
    assert "it ended" in written["failed"]
    assert (tmp_path / "deep" / "one.md").read_text() == text + "\n"


def test_lengths_do_not_depend_on_what_was_drawn_before(size):
    random.seed(3)
    first = prompt_lengths(size, 1)
    random.seed(4)
    assert prompt_lengths(size, 1) == first


def test_a_method_that_fails_is_a_line_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(soundness, "METHODS", ("sft", "gkd", "nothing"))
    found, text = soundness.methods(SIZES["tiny"])
    sound = {(row["method"], row["sound"]) for row in found["rows"]}
    assert sound == {("sft", True), ("gkd", True), ("nothing", False)}
    assert "8 of 12 ended with finite losses and weights." in text and "is not one of sft, dft" in text


@pytest.mark.slow
def test_kernels_are_held_against_fp64():
    found, text = soundness.kernels(SIZES["tiny"])
    assert {row["kernel"] for row in found["rows"]} == {"dense", "chunked", "fused"}
    assert max(share for row in found["rows"] for share in row["off"]) < 1e-5
    assert len(text.splitlines()) == 15
