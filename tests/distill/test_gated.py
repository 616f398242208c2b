"""A teacher that each language trusts as far as it deserves: the hybrid, the shares, the balance, the probe."""

import contextlib
import json
import math
from types import SimpleNamespace

import pytest
import torch
from test_trainer import make_trainer, metrics_of

from dudi import DudiConfig
from dudi.data.examples import ExampleSet
from dudi.distill.batch import MicroBatch, Scored
from dudi.distill.by_language import balance, language_shares, token_table
from dudi.distill.recipe import RunConfig
from dudi.distill.setup import rows_for_probe
from dudi.distill.stages import probe as stage
from dudi.distill.stages.probe import FILE, PROBE, _with_examples, score, weigh
from dudi.distill.verbalizer import Verbalizer
from dudi.errors import ConfigError, DataError
from dudi.evaluation.of_run import asked_of, probe_notes
from dudi.objective.heads import Distance, Head
from dudi.objective.losses import token_divergence, token_log_probs
from dudi.objective.signals import Heads, OffPolicySignal, OnPolicySignal, Rows
from dudi.program.cli import main
from helpers import ROWS, make_args

PLAIN = {"teacher_weight": 1.0, "loss_average": "token", "language_balance": False, "verbalizer_targets": "uniform"}


def losses(folder, name="loss"):
    return [record[name] for record in metrics_of(folder, None) if record["stage"] != "cold_start"]


def weights(trainer):
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def asked_of_teacher(trainer):
    """What the probe asks the teacher, as text."""
    found = []

    def scores(run, engine, chat, prompts, rows):
        found.append([chat.tokenizer.decode(prompt) for prompt in prompts])
        return [0.0] * len(prompts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "_scores", scores)
        stage._probe(trainer.run, trainer.setup.probe.examples)
    return found[1]  # behind the student's


def test_with_weights_of_one_it_is_dudi_to_the_bit(tmp_path, tokenizer):
    trainers = {}
    for name, keys in (("dudi", {}), ("gated", PLAIN)):
        trainers[name] = make_trainer(tmp_path / name, name, tokenizer=tokenizer, **keys)
        trainers[name].train()
    assert losses(tmp_path / "gated") == losses(tmp_path / "dudi")
    assert all(map(torch.equal, weights(trainers["gated"]), weights(trainers["dudi"])))


@pytest.mark.parametrize(("gold_loss", "method"), [("dft", "dft"), ("sft", "sft")])
def test_with_weights_of_zero_the_targets_loss_is_the_gold_loss(tmp_path, tokenizer, gold_loss, method):
    alone = {"cold_start": "none", "without": ["sequence", "on_policy"], "lmbda": 0.0, "loss_average": "token"}
    keys = {"teacher_weight": 0.0, "gold_loss": gold_loss, "verbalizer_targets": "uniform", "language_balance": False}
    hybrid = make_trainer(tmp_path / "hybrid", "gated", tokenizer=tokenizer, **alone, **keys)
    plain = make_trainer(tmp_path / "plain", method, tokenizer=tokenizer)
    hybrid.train(), plain.train()
    assert losses(tmp_path / "hybrid") == pytest.approx(losses(tmp_path / "plain"), rel=1e-6)
    for ours, theirs in zip(weights(hybrid), weights(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kernel", ["dense", "fused"])
def test_each_token_is_w_of_the_divergence_and_the_rest_of_the_gold_loss(kernel):
    draw = torch.Generator().manual_seed(0)
    hidden, teacher = torch.randn(3, 4, generator=draw), torch.randn(3, 5, generator=draw)
    ours, theirs = Head(torch.randn(9, 4, generator=draw)), Head(torch.randn(9, 5, generator=draw))
    labels, trust = torch.tensor([1, 8, 3]), torch.tensor([0.2, 0.2, 1.0])
    rows = Rows(hidden, labels, [2, 1], torch.tensor([1.0, 1.0, 0.5]), teacher, trust=trust)
    distance = Distance("reverse_kl", 0.5, 1.0)
    heads = Heads(ours, theirs, kernel)
    found = OffPolicySignal("divergence", distance, "dft").loss({"gold": rows}, heads)
    divergence = token_divergence(ours.logits(hidden), theirs.logits(teacher), "reverse_kl")
    log_probs = token_log_probs(ours.logits(hidden), labels)
    by_hand = trust * divergence - (1 - trust) * log_probs.exp() * log_probs
    torch.testing.assert_close(found, (by_hand * rows.weights).sum())
    torch.testing.assert_close(rows.values["off_policy"], by_hand)
    on_policy = OnPolicySignal(distance, "verbalized").loss({"verbalized": rows}, heads)
    torch.testing.assert_close(on_policy, (trust * divergence * rows.weights).sum())


def scored(kind, language, length, trained=0):
    return Scored(kind, None, [1], list(range(length)), [1], language, True, trained)


def test_each_language_counts_by_its_rows():
    batches = [
        MicroBatch({"gold": [scored("gold", "my", 30), scored("gold", "id", 4)]}),
        MicroBatch({"gold": [scored("gold", "id", 6), scored("gold", "id", 10, trained=2)]}),
    ]
    shares = language_shares(token_table(batches, ["id", "my"]), ["id", "my"])
    assert shares == {("gold", "my"): 1 / 30, ("gold", "id"): 3 / 18}
    for batch in batches:
        batch.shares = shares
    assert sum(batch.summed_weights()["gold"] for batch in batches) == pytest.approx(4)  # rows
    assert float(batches[0].weights("gold")[:30].sum()) == pytest.approx(1)  # Burmese: one row of four


def test_the_balance_is_clipped():
    counts = torch.tensor([100.0, 100.0, 100.0])
    deviations = torch.tensor([1.0, 0.01, 20.0])
    ratios = torch.stack([torch.zeros(3), counts * deviations.square(), counts], dim=1)
    whole = math.sqrt(float((counts * deviations.square()).sum() / counts.sum()))
    found = balance(ratios, ["id", "th", "my"])
    assert found == {"id": 4.0, "th": 4.0, "my": pytest.approx(max(whole / 20, 0.25))}


class TestTheProbe:
    def test_weights_by_hand(self):
        teacher, student = [0.9, 0.7, 0.8, 0.1, 0.2], [0.2, 0.4, 0.3, 0.1, 0.2]
        found = weigh(["id"] * 3 + ["ta"] * 2, teacher, student)
        gaps = [0.7, 0.3, 0.5]
        error = max(0.2, 1 / 3) / math.sqrt(3)
        assert found["id"]["weight"] == pytest.approx(1 / (1 + math.exp(-(sum(gaps) / 3) / error)))
        assert found["ta"]["weight"] == 0.5  # as good as the student
        worse = weigh(["my"] * 50, [0.0] * 50, [0.5] * 50)
        assert worse["my"]["weight"] < 1e-6

    def test_scores(self):
        assert score("กรุงเทพ", "กรุงเทพ") == 1.0
        assert 0 < score("Jakarta Selatan", "Jakarta") < 1
        assert score("xyz", "กรุงเทพ") == 0.0
        assert score("e\u0301t\u00e9", "\u00e9te\u0301") == 1.0  # one text in two normal forms

    def test_held_out_rows_are_not_trained_on(self, tmp_path, tokenizer):
        trainer = make_trainer(tmp_path, "gated", tokenizer=tokenizer, probe_rows=2)
        train, probe = trainer.setup.train.examples, trainer.setup.probe.examples
        assert probe and not {one.row.id for one in train} & {one.row.id for one in probe}
        again = rows_for_probe(ExampleSet([*train, *probe], {}, ""), None, 2, seed=3, notes=[])
        assert {one.row.id for one in again[1].examples} == {one.row.id for one in probe}

    def test_rows_of_training_are_not_asked(self, tmp_path, tokenizer):
        fresh = [{**row, "id": f"new-{row['id']}", "prompt": f"{row['prompt']} !"} for row in ROWS]
        moved = [{**row, "id": f"moved-{row['id']}"} for row in ROWS[:8]]  # another id makes no other row
        keys = {"tokenizer": tokenizer, "probe_rows": 9}
        trainer = make_trainer(tmp_path, "gated", eval_rows=[*fresh, *moved], **keys)
        assert {one.row.id for one in trainer.setup.probe.examples} == {row["id"] for row in fresh}
        assert len(trainer.setup.train.examples) == len(ROWS)
        assert any("data.eval: training rows are left out of the probe: en 1, id 1" in n for n in trainer.setup.notes)
        trainer = make_trainer(tmp_path / "all", "gated", tokenizer=tokenizer, probe_rows=2, eval_rows=moved)
        assert any("data.eval: all 8 rows are training rows" in note for note in trainer.setup.notes)
        train, probe = trainer.setup.train.examples, trainer.setup.probe.examples
        assert probe and len(train) + len(probe) == len(ROWS)

    def test_a_dry_run_says_so_too(self, capsys):
        assert main(["train", "mini/gated", "data.eval=cldr-qa-1", "--dry-run"]) == 0
        assert "data.eval: all 1,792 rows are training rows" in "".join(capsys.readouterr())

    def test_questions_that_are_reported_are_said(self, tmp_path):
        asked = [{"id": row["id"], "language": row["language"], "prompt": row["prompt"]} for row in ROWS[:3]]
        (tmp_path / "q.jsonl").write_text("".join(json.dumps(one | {"answer": "x"}) + "\n" for one in asked))
        (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        recipe = tmp_path / "run.yaml"
        lines = ["method: gated", "student: S", "teacher: T", f"data: {{train: x.jsonl, eval: {tmp_path}/e.jsonl}}"]
        recipe.write_text("\n".join([*lines, f"benchmark: {tmp_path}/q.jsonl"]) + "\n")
        config = RunConfig.load(recipe)
        args = config.dudi_config(tmp_path / "run")
        (note,) = probe_notes(config, args, asked_of(config, args))
        assert note.startswith("data.eval: 3 of 32 rows are questions of q, which the run reports")
        known = RunConfig.load(recipe, ["teacher_weight=1", "eval_on_start=true"])
        assert not probe_notes(known, known.dudi_config(tmp_path / "run"), asked_of(config, args))

    def test_the_teacher_reads_other_rows_of_the_language_answered(self, tmp_path, tokenizer):
        plain = make_trainer(tmp_path / "plain", "gated", tokenizer=tokenizer, probe_rows=2)
        shown = make_trainer(tmp_path / "shown", "gated", tokenizer=tokenizer, probe_rows=2, probe_examples=1)
        rows = shown.setup.probe.examples
        asked = [text for text in asked_of_teacher(shown) if text.count("<|im_start|>assistant") == 2]
        assert len(asked) == len(rows) and len(asked_of_teacher(plain)) == len(rows)
        for row, text in zip(rows, asked, strict=True):
            others = [one.row for one in rows if one.row.language == row.row.language and one is not row]
            assert {one.completion in text for one in others[:1]} == {True}
            assert text.rindex(row.row.prompt[-1]["content"]) > max(text.index(one.completion) for one in others[:1])
            assert row.row.completion not in text.rpartition(row.row.prompt[-1]["content"])[2]
        assert not any(text.count("<|im_start|>assistant") > 1 for text in asked_of_teacher(plain))

    def test_more_examples_than_there_can_be_are_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="probe_examples: 4 other rows of a language need more than 4"):
            make_args(tmp_path, "gated", probe_rows=4, probe_examples=4)

    def test_a_systems_turn_stays_in_front(self):
        def row(name, system):
            turns = [{"role": "system", "content": system}, {"role": "user", "content": name}]
            return SimpleNamespace(row=SimpleNamespace(language="id", prompt=turns, completion=f"answer {name}"))

        rows = [row("a", "be kind"), row("b", "be brief"), row("c", "be quick")]
        found = [(turn["role"], turn["content"]) for turn in _with_examples(rows[1], rows, 5)]
        assert found == [
            ("system", "be brief"),
            *(("user", "c"), ("assistant", "answer c"), ("user", "a"), ("assistant", "answer a"), ("user", "b")),
        ]

    def test_it_is_sealed_and_read_again(self, tmp_path, tokenizer):
        first = make_trainer(tmp_path, "gated", tokenizer=tokenizer, probe_rows=2)
        first.train()
        file = tmp_path / "stages" / PROBE / FILE
        before, modified = file.read_bytes(), file.stat().st_mtime_ns
        again = make_trainer(tmp_path, "gated", tokenizer=tokenizer, probe_rows=2)
        again.prepare()
        assert file.read_bytes() == before and file.stat().st_mtime_ns == modified
        assert again.run.trust == first.run.trust
        assert set(first.run.trust.by_language) == {one.row.language for one in first.setup.probe.examples}

    def test_a_language_that_was_not_asked_counts_half(self, tmp_path, tokenizer, capsys):
        """As in the formula where nothing is known: sigmoid(0). It is said, and asked for no oftener than others."""
        rows = [row for row in ROWS if row["language"] != "en"]
        one = next(row for row in ROWS if row["language"] == "en")
        trainer = make_trainer(tmp_path, "gated", tokenizer=tokenizer, probe_rows=2, rows=[*rows, one])
        trainer.prepare()
        trust = trainer.run.trust
        assert "en" not in trust.by_language and trust.of("en") == 0.5
        assert trainer.setup.verbalizer.target_weights["en"] == 0.5
        assert "  en: no row was asked -> 0.50" in capsys.readouterr().err
        assert any(note.startswith("teacher_weight: auto: ") for note in trainer.setup.notes)

    def test_without_a_row_to_ask_it_is_refused(self, tmp_path, tokenizer):
        rows = [next(row for row in ROWS if row["language"] == code) for code in ("id", "my")]
        with pytest.raises(DataError, match="no row can be asked"):
            make_trainer(tmp_path, "gated", tokenizer=tokenizer, rows=rows)


def test_a_resumed_run_ends_with_the_same_bits(tmp_path, tokenizer):
    keys = {"probe_rows": 2, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = make_trainer(tmp_path / "whole", "gated", tokenizer=tokenizer, **keys)
    whole.train()
    again = make_trainer(tmp_path / "whole", "gated", tokenizer=tokenizer, **keys)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoints" / "step-2"))
    assert all(map(torch.equal, weights(whole), weights(again)))
    assert torch.equal(whole.run.ratios, again.run.ratios)


def test_a_language_of_weight_zero_is_never_asked_for():
    verbalizer = Verbalizer("cross_lingual", ["id", "th", "my"], seed=0)
    uniform = [verbalizer.target(f"r{i}", "id") for i in range(900)]
    verbalizer.target_weights = {"th": 1.0, "my": 0.0, "en": 0.5}
    drawn = [verbalizer.target(f"r{i}", "id") for i in range(900)]
    assert set(uniform) == {"th", "my", "en"} and set(drawn) == {"th", "en"}
    assert drawn.count("th") / 900 == pytest.approx(2 / 3, abs=0.06)
    verbalizer.target_weights = {"th": 0.0, "my": 0.0, "en": 0.0}
    assert [verbalizer.target(f"r{i}", "id") for i in range(900)] == uniform


def test_metrics_of_each_language_add_up(tmp_path, tokenizer):
    make_trainer(tmp_path, "dudi", tokenizer=tokenizer).train()
    record = metrics_of(tmp_path, "dudi")[0]
    for name in ("sequence", "off_policy", "on_policy"):
        parts = [one for one in record["languages"].values() if f"loss/{name}" in one]
        assert sum(one[f"share/{name}"] for one in parts) == pytest.approx(1)
        whole = sum(one[f"share/{name}"] * one[f"loss/{name}"] for one in parts)
        assert whole == pytest.approx(record[f"loss/{name}"], rel=1e-5)


def test_each_signal_may_have_its_divergence(tmp_path, tokenizer):
    both = {"cold_start": "none", "max_steps": 1}
    make_trainer(tmp_path / "a", "dudi", tokenizer=tokenizer, off_policy_divergence="forward_kl", **both).train()
    make_trainer(tmp_path / "b", "dudi", tokenizer=tokenizer, divergence="forward_kl", **both).train()
    make_trainer(tmp_path / "c", "dudi", tokenizer=tokenizer, **both).train()
    (a,), (b,), (c,) = (metrics_of(tmp_path / name) for name in "abc")
    assert a["loss/off_policy"] == b["loss/off_policy"] != c["loss/off_policy"]
    assert a["loss/on_policy"] == c["loss/on_policy"] != b["loss/on_policy"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"teacher_weight": 1.5}, "teacher_weight: must"),
        ({"teacher_weight": {"my": -0.1}}, "teacher_weight: must lie between 0 and 1, got -0.1"),
        ({"verbalizer": "none", "verbalizer_targets": "teacher"}, "verbalizer_targets: needs"),
        ({"targets": "teacher"}, "teacher_weight: what is not the teacher's share is learned from the ground truth"),
        (
            {"teacher_weight": 0.0, "without": ["off_policy", "sequence"]},
            "teacher_weight: 0 leaves nothing to train on",
        ),
        ({"teacher_weight": 0.5, "off_policy_loss": "dft", "lmbda": 0.0}, "no divergence from a second model is read"),
        ({"teacher_route": "auto"}, "teacher_route: auto chooses among several"),
    ],
)
def test_what_is_refused(tmp_path, tokenizer, keys, words):
    with pytest.raises(ConfigError, match=words):
        make_trainer(tmp_path, "gated", tokenizer=tokenizer, **keys)


@pytest.mark.parametrize(("weight", "left"), [({"id": 0.0, "th": 0.0, "en": 0.0}, 0), ({"id": 0.0, "th": 0.0}, 1)])
def test_shares_of_zero_are_held_against_the_languages_that_are_there(tmp_path, tokenizer, weight, left):
    """English is only asked for; where it has a share there is something to learn."""
    rows = [row for row in ROWS if row["language"] in ("id", "th")]
    keys = {"languages": ["id", "th"], "teacher_weight": weight, "without": ["off_policy", "sequence"]}
    refused = contextlib.nullcontext() if left else pytest.raises(ConfigError, match="0 leaves nothing to train on")
    with refused:
        make_trainer(tmp_path, "dudi", tokenizer=tokenizer, rows=rows, **keys)


def test_a_language_that_is_never_drawn_may_still_be_trained(tmp_path, tokenizer):
    """`multilingual` asks for each row's own language, whatever `exclude_targets` says."""
    keys = {"languages": ["id", "th"], "verbalizer": "multilingual", "exclude_targets": ["th"]}
    weight = {"teacher_weight": {"id": 0.0}, "without": ["off_policy", "sequence"]}
    make_trainer(
        tmp_path, "dudi", tokenizer=tokenizer, rows=[r for r in ROWS if r["language"] == "th"], **keys, **weight
    )


@pytest.mark.parametrize(
    ("keys", "belongs"),
    [
        ({"teacher_weight": 0.5, "probe_rows": 10}, "a probe: set `teacher_weight: auto`"),
        ({"teacher_weight": {"th": 0.0}, "probe_examples": 2}, "a probe: set `teacher_weight: auto`"),
        ({"teacher_weight": 0.5, "teacher_route": "auto"}, "a probe: set `teacher_weight: auto`"),
        ({"gold_loss": "sft"}, "a divergence on the targets with a share below 1: set `teacher_weight`"),
        ({"teacher_weight": 0.5, "off_policy_loss": "dft", "gold_loss": "sft"}, "a divergence on the targets"),
    ],
)
def test_keys_of_a_probe_and_of_a_share_are_not_passed_over(tmp_path, keys, belongs):
    with pytest.raises(ConfigError, match=f"does not read it: it belongs to {belongs}"):
        DudiConfig(output_dir=str(tmp_path), **keys)


def test_gated_without_a_verbalizer_chooses_no_language(tmp_path):
    """In Python, in a recipe, and when the run's own recipe is read again."""
    assert make_args(tmp_path, "gated", verbalizer="none").verbalizer_targets == "uniform"
    config = RunConfig.load("mini/gated", ["verbalizer=none"])
    assert config.settings["verbalizer_targets"] == "uniform"
    (tmp_path / "resolved.yaml").write_text(config.resolved_yaml(), encoding="utf-8")
    again = RunConfig.load(tmp_path / "resolved.yaml")
    assert again.dudi_config(tmp_path / "run").verbalizer_targets == "uniform"
    assert RunConfig.load("mini/gated").settings["verbalizer_targets"] == "teacher"


def test_a_number_counts_in_every_language(tmp_path, tokenizer):
    """Also in one that dudi does not know, and where a row has none."""
    losses = {}
    for weight in (0.0, 1.0):
        rows = [{**row, "language": "fr"} for row in ROWS[:8]]
        trainer = make_trainer(
            tmp_path / str(weight), "gkd", tokenizer=tokenizer, rows=rows, teacher_weight=weight, max_steps=1
        )
        trainer.train()
        losses[weight] = metrics_of(tmp_path / str(weight), "gkd")[0]
    assert losses[0.0]["loss/on_policy"] == 0 < losses[1.0]["loss/on_policy"]


def test_the_rollouts_of_each_language_are_weighed_in_its_metrics(tmp_path, tokenizer):
    codes = sorted({row["language"] for row in ROWS})
    weights = {code: place / len(codes) for place, code in enumerate(codes)}
    found = {}
    for name, weight in (("whole", 1.0), ("shares", weights)):
        keys = {"teacher_weight": weight, "verbalizer_targets": "uniform", "language_balance": False}
        make_trainer(tmp_path / name, "gated", tokenizer=tokenizer, max_steps=1, **keys).train()
        (record,) = metrics_of(tmp_path / name, "gated")
        parts = {code: one for code, one in record["languages"].items() if "loss/on_policy" in one}
        whole = sum(one["share/on_policy"] * one["loss/on_policy"] for one in parts.values())
        assert whole == pytest.approx(record["loss/on_policy"], rel=1e-5)
        found[name] = {code: one["loss/on_policy"] for code, one in parts.items()}
    expected = {code: weights[code] * loss for code, loss in found["whole"].items()}
    assert found["shares"] == pytest.approx(expected, rel=1e-4)


def test_an_unknown_language_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ConfigError, match="teacher_weight: unknown language 'mm'"):
        make_args(tmp_path, "gated", teacher_weight={"mm": 0.0})


def test_a_share_of_a_language_that_nothing_is_in_is_said(tmp_path, tokenizer):
    rows = [row for row in ROWS if row["language"] in ("id", "th")]
    keys = {"languages": ["id", "th"], "teacher_weight": {"vi": 0.0, "en": 0.5, "id": 0.2}}
    notes = make_trainer(tmp_path, "dudi", tokenizer=tokenizer, rows=rows, **keys).setup.notes
    assert "teacher_weight: no row is in vi, and no answer is asked for in it" in notes
