"""Rollouts that are empty, start with their end, never end, loop, or are in another language: counted and told."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dudi import DudiTrainer
from dudi.distill.alarms import SIGNS, CollapseAlarm
from dudi.distill.metrics import RolloutHealth, ends_in_a_loop, health_metrics
from dudi.errors import ConfigError, DataError
from dudi.rollouts import Rollout
from helpers import make_args, make_model

LIMIT = 24


def trainer_of(folder, tokenizer, rows, method="dudi", **keys):
    keys = {"max_new_tokens": LIMIT, "languages": ["id", "vi", "th", "ta", "tl", "ms", "my", "en"], **keys}
    args = make_args(folder, method, cold_start="none", mixing="sum", alarm_steps=2, **keys)
    return DudiTrainer(
        make_model(seed=1),
        make_model(seed=2),
        args,
        rows[:16],
        processing_class=tokenizer,
        teacher_processing_class=tokenizer,
    )


class Scripted:
    """An engine that answers everything with the same tokens, and remembers how many it was asked for."""

    def __init__(self, ids, ended):
        self.ids, self.ended, self.asked = ids, ended, 0

    def generate(self, requests):
        self.asked += len(requests)
        return [Rollout(list(self.ids), self.ended) for _ in requests]


def records_of(trainer):
    lines = (trainer.args.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def answers(tokenizer):
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    word = tokenizer("a", add_special_tokens=False)["input_ids"][0]
    tamil = tokenizer("தமிழ்நாட்டின் தலைநகரம் சென்னை.", add_special_tokens=False)["input_ids"]
    return {
        "starts with its end": ([end], True, {"rollout/empty_rate": 1.0, "rollout/eos_rate": 1.0}),
        "spaces": ([tokenizer(" ")["input_ids"][0], end], True, {"rollout/empty_rate": 1.0}),
        "never ends": (list(range(60, 60 + LIMIT)), False, {"rollout/eos_rate": 0.0, "rollout/repetition_rate": 0.0}),
        "one token for ever": ([word] * LIMIT, False, {"rollout/repetition_rate": 1.0, "rollout/eos_rate": 0.0}),
        "another language": ([*tamil, end], True, {"rollout/eos_rate": 1.0}),
    }  # fmt: skip


def check(folder, tokenizer, rows, method, kind):
    """One step on rollouts of a kind: finite numbers, exact counts."""
    ids, ended, rates = answers(tokenizer)[kind]
    keys = {"spin_iterations": 1} if method == "spin" else {}
    trainer = trainer_of(folder, tokenizer, rows, method, max_steps=1, **keys)
    trainer.run.collector.engine = engine = Scripted(ids, ended)
    trained = max(0, len(ids) - trainer.args.skip_completion_tokens)
    if not trained and method == "sdft":  # its one signal leaves the first tokens out: there is nothing to learn from
        with pytest.raises(DataError, match="no token is left to train on"):
            trainer.train()
        return
    trainer.train()
    (record,) = records_of(trainer)
    assert math.isfinite(record["loss"]) and math.isfinite(record["grad_norm"])
    if trainer.run.collector.pool is not None:  # SPIN wrote its answers before the step
        return
    assert record["rollout/mean_length"] == len(ids)
    assert {key: record[key] for key in rates} == rates
    if "tokens/on_policy" in record:
        assert record["tokens/on_policy"] == engine.asked // (2 if method == "dudi" else 1) * trained


KINDS = ("starts with its end", "spaces", "never ends", "one token for ever", "another language")


@pytest.mark.parametrize("kind", ("starts with its end", "one token for ever"))
def test_a_kind_has_exact_counts_and_a_finite_loss(tmp_path, tokenizer, rows, kind):
    check(tmp_path, tokenizer, rows, "dudi", kind)  # every kind and method: tests/trust/guard


@pytest.mark.parametrize(("stops", "rate", "length"), [("every token", 1.0, 1), ("none", 0.0, LIMIT)])
def test_the_real_engine_when_every_token_ends_or_none_does(tmp_path, tokenizer, rows, stops, rate, length):
    trainer = trainer_of(tmp_path, tokenizer, rows, max_steps=1)
    trainer.run.collector.engine.stop_ids = tuple(range(448)) if stops == "every token" else (10**6,)
    trainer.train()
    (record,) = records_of(trainer)
    assert (record["rollout/eos_rate"], record["rollout/mean_length"]) == (rate, length)
    assert math.isfinite(record["loss"]) and record["tokens/on_policy"] == 8 * length


def test_an_alarm_is_told_once_on_stderr_and_in_the_metrics(tmp_path, tokenizer, rows, capsys):
    ids, ended, _ = answers(tokenizer)["one token for ever"]
    trainer = trainer_of(tmp_path, tokenizer, rows, max_steps=3, alarm_wrong_language_rate=1.0)
    trainer.run.collector.engine = Scripted(ids, ended)
    trainer.train()
    told = [record.get("warnings", []) for record in records_of(trainer)]
    assert [len(lines) for lines in told] == [0, 2, 0]
    said = capsys.readouterr().err
    for line, words in zip(told[1], ("end in a loop of the same tokens", "never end"), strict=True):
        assert said.count(f"warning: {line}\n") == 1
        assert words in line and "100%" in line and "alarm_" in line


def test_the_alarm_waits_for_its_steps_and_takes_the_mean(tmp_path):
    alarm = CollapseAlarm(make_args(tmp_path, "gkd", alarm_steps=3, alarm_empty_rate=0.5))
    told = [alarm.see({"step": step, "rollout/empty_rate": rate}) for step, rate in enumerate([1.0, 1.0, 0.0, 0.0])]
    assert [len(lines) for lines in told] == [0, 0, 1, 0] and told[2][0].startswith("step 2: 67% of the rollouts")
    quiet = CollapseAlarm(make_args(tmp_path, "gkd", alarm_steps=1))
    assert quiet.see({}) == [] and quiet.see({sign.key: 1.0 if sign.inverted else 0.0 for sign in SIGNS}) == []


def test_thresholds_out_of_range_are_refused(tmp_path):
    for key, value in (("alarm_empty_rate", 1.5), ("alarm_steps", 0)):
        with pytest.raises(ConfigError, match=key):
            make_args(tmp_path, **{key: value})


def test_loops():
    assert ends_in_a_loop([7] * 16) and not ends_in_a_loop([7] * 15)
    assert ends_in_a_loop([9, 9, 1, *[1, 2, 3] * 6]) and ends_in_a_loop(list(range(8)) * 4)
    assert not ends_in_a_loop(list(range(9)) * 4) and not ends_in_a_loop([]) and not ends_in_a_loop([*[1] * 40, 2])


@given(st.lists(st.integers(0, 3), max_size=40))
def test_a_loop_is_what_it_says(ids):
    slow = any(
        len(ids) >= (size := max(16, 4 * period))
        and all(ids[-size:][i] == ids[-size:][i % period] for i in range(size))
        for period in range(1, 9)
    )
    assert ends_in_a_loop(ids) == slow


def test_the_rates_of_a_mixture():
    health = RolloutHealth()
    health.add([5], True, "", "id", ["id", "th"])
    health.add([3] * 20, False, "aaaa", "id", ["id", "th"])
    health.add([1, 2, 3], True, "เมืองหลวงของไทย", "id", ["id", "th"])
    rates = health_metrics(dataclasses.astuple(health))
    assert rates["rollout/empty_rate"] == rates["rollout/repetition_rate"] == pytest.approx(1 / 3)
    assert rates["rollout/eos_rate"] == pytest.approx(2 / 3) and rates["rollout/mean_length"] == 8
