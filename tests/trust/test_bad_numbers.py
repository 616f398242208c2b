"""NaN or Inf in the loss, a gradient or the teacher's output: stopped before the update, on every rank."""

import json

import pytest
import torch
from kills import differences, whole_run
from lab import records_of
from safetensors.torch import load_file

from dudi.training.checkpoints import newest_valid, verify
from helpers import ROWS

ROW = "NaN or Inf: stopped before the update on every rank, exit 4, rows named, last checkpoint finite"
IDS = {row["id"] for row in ROWS[:16]}
WHAT = {"loss": "the loss", "gradient": "the gradient", "teacher": "the teacher's output"}


def check(run, ranks, where, step):
    """What is wrong with how a run stopped at `step`; empty when nothing is."""
    wrong = []
    if [rank.code for rank in ranks] != [4] * len(ranks):
        wrong.append(f"exit {[rank.code for rank in ranks]} {ranks[-1].said[-600:]}")
        return wrong
    report = json.loads((run / "bad_numbers.json").read_text())
    if report["step"] != step or report["what"] != WHAT[where] or not set(report["rows"]) <= IDS or not report["rows"]:
        wrong.append(f"report {report}")
    if any(f"step {step}: {WHAT[where]} is not finite" not in rank.said.splitlines()[-1] for rank in ranks):
        wrong.append("message")
    if max((record["step"] for record in records_of(run)), default=0) != step - 1:
        wrong.append("a later step was logged")
    found, skipped = newest_valid(run / "checkpoints")
    expected = (step - 1) // 3 * 3
    if skipped or (found is None) != (expected == 0) or (found is not None and verify(found)["step"] != expected):
        wrong.append(f"checkpoint {found} {skipped}")
    if found is not None:
        for name in ("model.safetensors", "optimizer.safetensors"):
            if not all(torch.isfinite(tensor).all() for tensor in load_file(found / name).values()):
                wrong.append(f"{name} is not finite")
    return wrong


@pytest.mark.parametrize("number", ["nan", "inf"])
@pytest.mark.parametrize(("where", "method"), [("loss", "sft"), ("gradient", "sft"), ("teacher", "gkd")])
def test_one_process(lab, promise, tmp_path, where, method, number):
    lost, steps = [], (1, 5, 12)
    keys = ("cold_start=none",)
    whole = whole_run(lab, method, *keys)
    for step in steps:
        run = tmp_path / f"run-{step}"
        plant = {"where": where, "step": step, "number": number, "rank": 0, "stage": method}
        child = lab.run(lab.words(run, method, *keys), plant={"poison": plant})
        wrong = check(run, [child], where, step)
        again = lab.run(lab.words(run, method, *keys))  # no update was made: without the bad number it goes on as ever
        wrong += [] if again.code == 0 else [again.said[-300:]]
        wrong += differences(run, whole)
        lost += [f"step {step}: {wrong}"] if wrong else []
    promise(ROW, len(steps), len(lost), "numbers", f"{where} {number} {' '.join(lost)}")


@pytest.mark.parametrize("number", ["nan", "inf"])
@pytest.mark.parametrize(("where", "method"), [("loss", "sft"), ("gradient", "sft"), ("teacher", "gkd")])
def test_the_other_rank_stops_as_well(lab, promise, tmp_path, where, method, number):
    run, keys = tmp_path / "run", ("cold_start=none", "per_device_train_batch_size=1")
    plant = {"where": where, "step": 5, "number": number, "rank": 1, "stage": method}
    ranks = lab.run_ranks(lab.words(run, method, *keys), plants={1: {"poison": plant}})
    wrong = check(run, ranks, where, 5)
    promise(ROW, 1, len(wrong), "numbers", f"{where} {number} on one of two processes {wrong or ''}")


def test_damaged_weights_are_refused_before_training(lab, promise, tmp_path):
    from transformers import AutoModelForCausalLM

    from helpers import make_tokenizer

    for role in ("student", "teacher"):
        model = AutoModelForCausalLM.from_pretrained(lab.folder / role)
        with torch.no_grad():
            model.model.embed_tokens.weight[400, 0] = float("nan")  # of a token that the rows never use
        model.save_pretrained(tmp_path / role)
        make_tokenizer().save_pretrained(tmp_path / role)
        child = lab.run(lab.words(tmp_path / "run", "gkd", f"{role}.model={tmp_path / role}"))
        fine = child.code == 4 and f"the {role}: its weight model.embed_tokens.weight is not finite" in child.said
        promise("damaged weights: refused before training, exit 4", 1, not fine, "models", "" if fine else child.said)
