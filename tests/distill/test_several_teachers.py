"""Several teachers: who judges what, one denominator, the same bits as ever where there is no choice."""

import json
from collections import Counter

import pytest
import torch
from test_other_tokenizers import records_of
from test_trainer import Gradients, metrics_of, relative_difference

from dudi import DudiTrainer
from dudi.data.rows import parse_row
from dudi.distill.loading import Loaded
from dudi.distill.passes import judge_all
from dudi.distill.recipe import RunConfig
from dudi.distill.run import make_trainer as trainer_of_recipe
from dudi.distill.stages.probe import FILE, PROBE, best_of
from dudi.distill.step import Step
from dudi.distill.teachers import found_trust
from dudi.errors import ConfigError
from dudi.models.frozen import OffloadedModel
from dudi.plan import estimate
from dudi.program.cli import main
from helpers import CHATML, ROWS, make_args, make_model, make_tokenizer
from tokenizer_kinds import sentence_piece

SLOW = {"cold_start": "none"}
ALL = {"per_device_train_batch_size": 16, "max_steps": 1}
"""One step over all rows."""
SAVED = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, **SLOW}
PROBED = {"teacher_weight": "auto", "teacher_route": "auto", "probe_rows": 2}


def first_teacher():
    return make_model(seed=2, hidden_size=48)


def second_teacher():
    return make_model(seed=7, hidden_size=64, layers=1)


def make_trainer(folder, teachers, method="dudi", tokenizer=None, rows=ROWS, tokenizers=None, callbacks=None, **keys):
    one = {} if isinstance(teachers, dict) else {"teacher_model": teachers}
    return DudiTrainer(
        make_model(seed=1),
        args=make_args(folder, method, **keys),
        train_dataset=rows,
        processing_class=tokenizer or make_tokenizer(),
        teacher_processing_class=tokenizers,
        teachers=None if one else teachers,
        callbacks=callbacks,
        **one,
    )


def losses(folder):
    return [record["loss"] for record in metrics_of(folder)]


def weights(trainer):
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


@pytest.mark.parametrize("method", ["dudi", pytest.param("gated", marks=pytest.mark.slow), "seqkd"])
def test_the_same_model_under_several_keys_is_one_teacher_to_the_bit(method, tmp_path, tokenizer):
    model = first_teacher()
    trainers = [
        make_trainer(tmp_path / "one", model, method, tokenizer),
        make_trainer(tmp_path / "keys", {"default": model, "my": model, "ta": model}, method, tokenizer),
    ]
    for trainer in trainers:
        trainer.train()
    assert losses(tmp_path / "one") == losses(tmp_path / "keys")
    assert all(map(torch.equal, *map(weights, trainers)))
    assert "teachers" not in metrics_of(tmp_path / "keys")[-1]


@pytest.mark.parametrize("keys", [{}, {"teacher_weight": 0.3}, {"loss_average": "sequence", "loss_kernel": "dense"}])
def test_two_that_are_alike_give_the_gradient_of_one(tmp_path, tokenizer, keys):
    """One denominator: however the sequences are dealt out, the sum is that of one teacher."""
    seen = []
    for name, teachers in (("one", first_teacher()), ("two", {"default": first_teacher(), "my": first_teacher()})):
        watcher = Gradients()
        trainer = make_trainer(
            tmp_path / name, teachers, "dudi", tokenizer, callbacks=[watcher], max_grad_norm=0.0, **SLOW, **keys
        )
        trainer.train()
        seen.append((watcher.seen, metrics_of(tmp_path / name)[0]))
    (one, alone), (two, dealt) = seen
    assert relative_difference(one, two) < 1e-6
    for name in ("loss", "loss/off_policy", "loss/on_policy", "loss/sequence", "overlap@16", "teacher_entropy"):
        assert dealt[name] == pytest.approx(alone[name], rel=1e-5)
    for language, own in alone["languages"].items():
        assert dealt["languages"][language] == pytest.approx(own, rel=1e-4)


def test_each_completion_is_judged_by_its_own(tmp_path, tokenizer):
    """Each signal's sum is that of the sequences under the one teacher, and of the others under the other."""
    a, b = first_teacher(), second_teacher()
    found = {}
    for name, teachers in (("both", {"default": a, "my": b, "ta": b}), ("a", a), ("b", b)):
        make_trainer(tmp_path / name, teachers, "gkd", tokenizer, mixing="sum", **ALL, **SLOW).train()
        found[name] = metrics_of(tmp_path / name)[0]["languages"]
    for language, own in found["both"].items():
        alone = found["b" if language in ("my", "ta") else "a"][language]
        assert own == pytest.approx(alone, rel=1e-5)
    assert found["a"]["my"]["loss/off_policy"] != pytest.approx(found["b"]["my"]["loss/off_policy"], rel=1e-3)


def test_the_share_of_each_teacher_is_told(tmp_path, tokenizer):
    teachers = {"default": first_teacher(), "my": second_teacher()}
    trainer = make_trainer(tmp_path, teachers, "gkd", tokenizer, mixing="sum", **ALL, **SLOW)
    trainer.train()
    for record in metrics_of(tmp_path):
        own = record["teachers"]
        assert list(own) == ["default", "my"]
        for signal in ("off_policy", "on_policy"):
            assert sum(one[f"share/{signal}"] for one in own.values()) == pytest.approx(1)
            assert sum(one[f"tokens/{signal}"] for one in own.values()) == record[f"tokens/{signal}"]
            assert own["my"][f"share/{signal}"] == pytest.approx(record["languages"]["my"][f"share/{signal}"])


def test_a_rows_own_word_wins_over_its_language(tmp_path, tokenizer):
    rows = [{**row, **({"teacher": "expert"} if row["language"] == "id" else {})} for row in ROWS]
    teachers = {"default": first_teacher(), "expert": second_teacher()}
    trainer = make_trainer(tmp_path, teachers, "gkd", tokenizer, rows, mixing="sum", **SLOW)
    batch = trainer.run.collector.collect([trainer.setup.train.examples[:8]], trainer.signals, 0).batches[0]
    for sequences in batch.sequences.values():
        assert {s.teacher for s in sequences if s.example.row.language == "id"} == {"expert"}
        assert {s.teacher for s in sequences if s.example.row.language != "id"} == {"default"}
    assert (
        parse_row({"prompt": "a", "completion": "b", "language": "id", "teacher": 3}, fallback_id="x").teacher is None
    )


def test_a_rollout_is_judged_by_the_teacher_of_its_language(tmp_path, tokenizer):
    trainer = make_trainer(tmp_path, {"default": first_teacher(), "th": second_teacher()}, "dudi", tokenizer)
    batch = trainer.run.collector.collect([trainer.setup.train.examples], trainer.signals, 0).batches[0]
    rolled = batch.sequences["verbalized"]
    assert {s.teacher for s in rolled if s.language == "th"} == {"th"}
    assert {s.teacher for s in rolled if s.language != "th"} == {"default"}
    assert any(s.language == "th" != s.example.row.language for s in rolled)


def test_each_is_asked_in_its_own_template(tmp_path):
    other = make_tokenizer(template=CHATML.replace("{{ m['role'] }}\n", "{{ m['role'] }}: "))
    tokenizers = {"default": make_tokenizer(), "my": other}
    teachers = {"default": first_teacher(), "my": second_teacher()}
    trainer = make_trainer(tmp_path, teachers, "dudi", tokenizers=tokenizers, **SLOW)
    batch = trainer.run.collector.collect([trainer.setup.train.examples], trainer.signals, 0).batches[0]
    for kind in ("gold", "verbalized"):
        for scored in batch.sequences[kind]:
            said = tokenizers[scored.teacher].decode(scored.teacher_prompt)
            assert ("user: " in said) == (scored.language == "my") == (scored.teacher == "my")
    trainer.train()


def test_one_of_them_may_have_a_tokenizer_of_its_own(tmp_path, tokenizer):
    piece = sentence_piece()
    teachers = {"default": first_teacher(), "my": make_model(seed=2, hidden_size=48, vocab_size=len(piece) + 28)}
    keys = {**SLOW, **ALL, "mixing": "sum"}
    trainer = make_trainer(
        tmp_path / "both", teachers, "gkd", tokenizer, tokenizers={"default": tokenizer, "my": piece}, **keys
    )
    trainer.train()
    record = records_of(tmp_path / "both", "gkd")[0]
    assert 0 < record["events/bytes_used"] <= 1 and record["overlap@16"] > 0
    make_trainer(tmp_path / "one", first_teacher(), "gkd", tokenizer, **keys).train()
    alone = records_of(tmp_path / "one", "gkd")[0]["languages"]
    for language in set(alone) - {"my"}:  # those of the default teacher are what they are without the other
        assert record["languages"][language]["loss/off_policy"] == pytest.approx(
            alone[language]["loss/off_policy"], rel=1e-5
        )


def test_each_writes_the_answers_of_its_languages(tmp_path, tokenizer):
    a, b = first_teacher(), second_teacher()
    found = {}
    for name, teachers in (("both", {"default": a, "my": b}), ("a", a), ("b", b)):
        make_trainer(tmp_path / name, teachers, "seqkd", tokenizer, **SLOW).train()
        lines = (tmp_path / name / "stages" / "targets" / "answers" / "answers.jsonl").read_text().splitlines()
        found[name] = {record["id"]: record["ids"] for record in map(json.loads, lines)}
    assert len(found["both"]) == len(ROWS)
    for row, ids in found["both"].items():
        assert ids == found["b" if row.startswith("my") else "a"][row]
    assert found["a"] != found["b"]


def test_a_cold_start_on_their_answers_reads_both(tmp_path, tokenizer):
    teachers = {"default": first_teacher(), "my": second_teacher()}
    make_trainer(tmp_path, teachers, "dudi", tokenizer, cold_start="teacher_sft").train()
    assert (tmp_path / "stages" / "cold_start" / "stages" / "targets" / "answers" / "answers.jsonl").is_file()


class TestTheRun:
    def test_goes_on_to_the_same_bits_and_not_with_others(self, tmp_path, tokenizer):
        def trainer(teachers):
            return make_trainer(tmp_path, teachers, "dudi", tokenizer, **SAVED)

        whole = trainer({"default": first_teacher(), "my": second_teacher()})
        whole.train()
        half = str(tmp_path / "checkpoints" / "step-2")
        again = trainer({"default": first_teacher(), "my": second_teacher()})
        again.train(resume_from_checkpoint=half)
        assert all(map(torch.equal, weights(whole), weights(again)))
        for other in (
            {"default": first_teacher(), "my": make_model(seed=8, hidden_size=64, layers=1)},
            {"default": first_teacher(), "ta": second_teacher()},
            {"default": second_teacher(), "my": first_teacher()},
            first_teacher(),
        ):
            with pytest.raises(ConfigError, match="belongs to a run with other settings"):
                trainer(other).train(resume_from_checkpoint=half)

    def test_offloaded_teachers_give_the_same_bits(self, tmp_path, tokenizer):
        models = []
        for name, keys in (("held", {}), ("offloaded", {"teacher_offload": "cpu"})):
            teachers = {"default": first_teacher(), "my": second_teacher()}
            trainer = make_trainer(tmp_path / name, teachers, "dudi", tokenizer, **SLOW, **keys)
            trainer.train()
            models.append(weights(trainer))
        assert losses(tmp_path / "held") == losses(tmp_path / "offloaded")
        assert all(map(torch.equal, *models))

    def test_offloaded_teachers_are_opened_once_a_step(self, tmp_path, tokenizer, monkeypatch):
        opened = Counter()
        plain = OffloadedModel.opened

        def counted(self):
            opened[id(self)] += 1
            return plain(self)

        monkeypatch.setattr(OffloadedModel, "opened", counted)
        teachers = {"default": first_teacher(), "my": second_teacher()}
        keys = {"teacher_offload": "cpu", "gradient_accumulation_steps": 4, "per_device_train_batch_size": 8}
        make_trainer(tmp_path, teachers, "dudi", tokenizer, **SLOW, **keys).train()
        assert sorted(opened.values()) == [2, 2]  # two steps of four micro-batches

    def test_a_teacher_without_rows_is_not_read(self, tmp_path, tokenizer):
        trainer = make_trainer(tmp_path, {"default": first_teacher(), "my": second_teacher()}, "gkd", tokenizer)
        rows = [example for example in trainer.setup.train.examples if example.row.language != "my"]
        signals = {"off_policy": trainer.signals["off_policy"]}
        batch = trainer.run.collector.collect([rows], signals, 0).batches[0]
        judge_all(trainer.run, [batch], signals, Step(0, signals, {}))
        assert set(batch.judged) == {"default"}


class TestTheProbe:
    def test_the_best_by_hand(self):
        languages, student = ["id", "id", "my"], [0.1, 0.3, 0.5]
        found = best_of(languages, {"a": [0.4, 0.6, 0.1], "b": [0.5, 0.5, 0.9], "c": [0.2, 0.2, 0.2]}, student)
        assert found["id"]["teacher_name"] == "a"  # as good as b, and before it
        assert found["my"]["teacher_name"] == "b" and found["my"]["teacher"] == 0.9
        assert found["my"]["teachers"] == {"a": 0.1, "b": 0.9, "c": 0.2}
        trust = found_trust(found)
        assert trust.of("my") == trust.of("my", "b") == found["my"]["weight"] > 0.5
        assert trust.of("my", "a") < 0.5  # a row that names its own teacher has that one's share

    def test_routes_each_language_and_is_read_again(self, tmp_path, tokenizer):
        teachers = {"one": first_teacher(), "two": second_teacher()}
        first = make_trainer(tmp_path, teachers, "gated", tokenizer, **PROBED)
        first.train()
        found = json.loads((tmp_path / "stages" / PROBE / FILE).read_text())
        assert {one["teacher_name"] for one in found.values()} <= {"one", "two"}
        assert all(one["teacher"] == max(one["teachers"].values()) for one in found.values())
        assert first.setup.teachers.chosen == {language: one["teacher_name"] for language, one in found.items()}
        again = make_trainer(tmp_path, teachers, "gated", tokenizer, **PROBED)
        again.prepare()
        assert again.setup.teachers.chosen == first.setup.teachers.chosen and again.run.trust == first.run.trust

    def test_without_a_route_each_language_asks_its_own(self, tmp_path, tokenizer):
        a, b, found = first_teacher(), second_teacher(), {}
        for name, teachers in (("both", {"default": a, "my": b}), ("a", a), ("b", b)):
            trainer = make_trainer(tmp_path / name, teachers, "gated", tokenizer, probe_rows=2, **SLOW)
            trainer.prepare()
            found[name] = json.loads((tmp_path / name / "stages" / PROBE / FILE).read_text())
        for language, one in found["both"].items():
            assert one.pop("teacher_name") == ("my" if language == "my" else "default")
            assert one == found["b" if language == "my" else "a"][language]


@pytest.mark.parametrize(
    ("keys", "teachers", "words"),
    [
        ({}, ("my", "default", "mm"), "teachers: 'mm' is neither a language"),
        ({}, ("my", "th"), "teachers: there is none for en, id"),
    ],
)
def test_what_is_refused(tmp_path, tokenizer, keys, teachers, words):
    models = {key: make_model(seed=place, layers=1) for place, key in enumerate(teachers)}
    with pytest.raises(ConfigError, match=words):
        make_trainer(tmp_path, models, "dudi", tokenizer, **keys)


@pytest.mark.parametrize(
    ("teachers", "words"),
    [
        (lambda student: [first_teacher()], "teachers: got a list; give models by their keys"),
        (lambda student: {"default": None}, "teachers: there is no model at 'default'"),
        (lambda student: {"default": first_teacher(), "my": student}, "one is the student itself"),
    ],
)
def test_what_is_no_teacher_is_refused_in_python(tmp_path, tokenizer, teachers, words):
    student = make_model(seed=1)
    with pytest.raises(ConfigError, match=words):
        DudiTrainer(student, None, make_args(tmp_path), ROWS, processing_class=tokenizer, teachers=teachers(student))


def test_both_ways_at_once_are_refused(tmp_path, tokenizer):
    with pytest.raises(ConfigError, match="there is a teacher_model too"):
        DudiTrainer(make_model(), first_teacher(), make_args(tmp_path), ROWS, teachers={"default": first_teacher()})


class TestTheRecipe:
    @pytest.fixture
    def recipe(self, tmp_path):
        file = tmp_path / "run.yaml"

        def written(*lines):
            file.write_text("\n".join(["method: gkd", "student: S", "data: {train: x.jsonl}", *lines]) + "\n")
            return file

        return written

    def test_reads_text_and_sections(self, recipe):
        config = RunConfig.load(recipe("teachers:", "  default: A", "  my: {model: B, dtype: float32}", "  ta: A"))
        assert {key: section.model for key, section in config.teachers.items()} == {
            "default": "A",
            "my": "B",
            "ta": "A",
        }
        assert config.teachers["my"].dtype == "float32" and config.main_teacher.model == "A"
        assert list(config.named_teachers) == ["default+ta", "my"]

    def test_is_written_as_it_is_read(self, recipe, tmp_path):
        config = RunConfig.load(recipe("teachers: {default: A, my: B}"), ["teachers.my.dtype=float32", "teachers.th=C"])
        (tmp_path / "resolved.yaml").write_text(config.resolved_yaml())
        assert RunConfig.load(tmp_path / "resolved.yaml") == config
        assert config.origin("teachers.my.dtype") == "command line" and config.origin("teachers.my.model") == "recipe"

    def test_the_upper_layer_takes_its_way(self, recipe, tmp_path):
        recipe("teacher: A")
        upper = tmp_path / "upper.yaml"
        upper.write_text("extends: run.yaml\nteachers: {default: B, my: C}\n")
        config = RunConfig.load(upper)
        assert config.teacher.model is None and config.main_teacher.model == "B"
        back = RunConfig.load(upper, ["teacher=D"])
        assert back.teachers == {} and back.main_teacher.model == "D"

    @pytest.mark.parametrize(
        ("lines", "words", "message"),
        [
            (["teacher: A", "teachers: {default: B}"], [], r"run.yaml:4: teacher: there are `teachers` too"),
            (["teachers: {default: {dtype: float32}}"], [], r"run.yaml:4: teachers.default.model is missing"),
            (["teachers: A"], [], r"run.yaml:4: teachers: expected a mapping of names"),
            (["teachers: {default: {modl: A}}"], [], r"unknown key 'teachers.default.modl' \(did you mean"),
            (["teachers: {'a b': A}"], [], r"'a b' is no name"),
        ],
    )
    def test_what_is_refused(self, recipe, lines, words, message):
        with pytest.raises(ConfigError, match=message):
            RunConfig.load(recipe(*lines), words)

    def test_code_of_a_teacher_is_told_on_the_command_line_alone(self, recipe):
        file = recipe("teachers: {default: A, my: {model: B, trust_remote_code: true}}")
        with pytest.raises(ConfigError, match="may not let a model run its own code"):
            RunConfig.load(file).refuse_untold_code()
        RunConfig.load(file, ["teachers.my.trust_remote_code=true"]).refuse_untold_code()


def test_a_recipe_with_two_loads_each_once(tmp_path, tokenizer, monkeypatch):
    from dudi.data.sources import rows_from_records
    from dudi.models import load

    for name, model in (("s", make_model(seed=1)), ("a", first_teacher()), ("b", second_teacher())):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    read, plain = Counter(), load.load_model
    monkeypatch.setattr(load, "load_model", lambda name, **keys: (read.update([name[-1]]), plain(name, **keys))[1])
    file = tmp_path / "run.yaml"
    lines = [
        "method: gkd",
        "cold_start: none",
        "max_steps: 1",
        "use_cpu: true",
        "max_new_tokens: 8",
        "data: {train: x}",
    ]
    lines += [
        f"student: {tmp_path}/s",
        "teachers:",
        *(f"  {k}: {tmp_path}/{m}" for k, m in zip(("default", "my", "ta"), "abb", strict=True)),
    ]
    file.write_text("\n".join(lines) + "\n")
    config = RunConfig.load(file)
    loaded = Loaded(config, config.dudi_config(tmp_path / "run"))
    rows = rows_from_records(ROWS, languages=[row["language"] for row in ROWS])
    trainer = trainer_of_recipe(loaded, rows, None)
    assert read == {"s": 1, "a": 1, "b": 1}
    assert trainer.setup.teachers.routes == {"default": "default", "my": "my+ta", "ta": "my+ta"}
    trainer.train()
    assert set(metrics_of(tmp_path / "run")[0]["teachers"]) == {"default", "my+ta"}


def test_a_plan_counts_all_of_them_or_the_largest_where_they_are_offloaded(tmp_path):
    student, a, b = make_model(seed=1).config, first_teacher().config, second_teacher().config
    plans = {}
    for name, others, keys in (
        ("one", [], {}),
        ("two", [(b, None)], {}),
        ("offloaded", [(b, None)], {"teacher_offload": "cpu"}),
    ):
        plans[name] = estimate(
            student, a, make_args(tmp_path, "gkd", **keys), rows=8, dtype="bfloat16", other_teachers=others
        )
    sizes = [2 * sum(p.numel() for p in model.parameters()) for model in (first_teacher(), second_teacher())]
    assert plans["one"].memory.teacher == sizes[0]
    assert plans["two"].memory.teacher == sum(sizes)
    assert plans["offloaded"].memory.teacher == 0
    assert plans["offloaded"].memory.scoring > max(sizes)
    assert any("teacher_offload" in note for note in plans["offloaded"].notes)


def test_the_report_and_the_card_name_each_once(tmp_path, tokenizer):
    from dudi.report.facts import teacher_names, teachers_of
    from dudi.report.run_folder import read_run

    file = tmp_path / "run.yaml"
    file.write_text("method: gkd\nstudent: S\ndata: {train: x}\nteachers: {default: A, my: B, ta: B}\n")
    config = RunConfig.load(file)
    (tmp_path / "resolved.yaml").write_text(config.resolved_yaml())
    run = read_run(tmp_path)
    assert list(teachers_of(run)) == ["teacher default", "teacher my, ta"]
    assert teacher_names(run) == "default: A; my, ta: B"
    keys = {setting.key: setting.value for setting in run.settings}
    assert keys["teachers.my.model"] == "B" and keys["teachers.default.dtype"] == "auto" and keys["method"] == "gkd"


@pytest.mark.parametrize(("named", "read_by_b"), [(None, 1), ("default", 0)])
def test_a_dry_run_shows_z_in_the_template_of_who_reads_it(named, read_by_b, tmp_path, tokenizer, capsys, monkeypatch):
    """A row that names the default teacher was shown in the template of its language's."""
    monkeypatch.chdir(tmp_path)
    rows = [{**row, "teacher": named} if named else row for row in ROWS]
    other = make_tokenizer(template=CHATML.replace("{{ m['role'] }}\n", "{{ m['role'] }}: "))
    for name, own in (("s", tokenizer), ("a", tokenizer), ("b", other)):
        make_model(seed=1).save_pretrained(tmp_path / name)
        own.save_pretrained(tmp_path / name)
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    words = [
        "student=./s",
        "teachers={default: ./a, my: ./b}",
        "data=rows.jsonl",
        "use_cpu=true",
        "verbalizer=multilingual",
    ]
    (tmp_path / "run.yaml").write_text("method: dudi\nlanguages: [id, vi, th, ta, tl, ms, my, en]\n")
    assert main(["train", "run.yaml", *words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    burmese = said.partition("my-0")[2].partition("──")[2].partition("en-0")[0]
    assert said.count("<|im_start|>user: ") == burmese.count("<|im_start|>user: ") == read_by_b
    assert "  teacher  ./a" in said and "  teacher  ./b" in said  # in the plan


def test_its_own_teacher_has_no_choice(tmp_path, tokenizer):
    teachers = {"default": first_teacher(), "my": second_teacher()}
    with pytest.raises(ConfigError, match="teachers: method sdft is its own teacher"):
        make_trainer(tmp_path, teachers, "sdft", tokenizer, cold_start="teacher_sft")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["teachers={ta: TEACHER, my: TEACHER}"], "teachers: there is none for en, id, ms"),
        (["teachers={default: TEACHER, tamil: TEACHER}"], "teachers: 'tamil' is neither a language"),
        (["teacher_weight={my: 0, xx: 0.2}"], "teacher_weight: unknown language 'xx'"),
    ],
)
def test_a_dry_run_refuses_what_training_refuses(capsys, words, message):
    said = [word.replace("TEACHER", "package:dudi/mini/teacher") for word in words]
    assert main(["train", "mini/gkd", *said, "--dry-run"]) == 2
    told = capsys.readouterr()
    assert message in told.err and "nothing was trained" not in told.out


def test_a_name_that_is_no_key_is_said(tmp_path, tokenizer):
    rows = [{**row, "teacher": "ghost"} if row["language"] == "my" else row for row in ROWS]
    teachers = {"default": first_teacher(), "my": second_teacher()}
    for given in (teachers, first_teacher()):
        notes = make_trainer(tmp_path, given, "gkd", tokenizer, rows=rows).setup.notes
        assert "rows that name a teacher who is no key of `teachers` have their language's: 'ghost' 4" in notes
