"""However a batch is cut, and on however many processes: one gradient, one curve, through the real command line.

The gradient is read from the weights: one step of plain SGD with a huge learning rate leaves -rate x gradient.
"""

import json

import pytest
from lab import losses_of
from safetensors.torch import load_file

from dudi.objective.methods import METHODS
from helpers import ROWS, make_model, make_tokenizer

RATE = 65536.0
CUTS = {"8 x 1": (8, 1, 1), "1 x 8": (1, 8, 1), "4 x 2": (4, 2, 1), "2 processes": (2, 2, 2)}
COMMON = ("cold_start=none", "save_strategy=no", "num_train_epochs=100", "spin_iterations=13", "max_new_tokens=6")
ROW = "accumulation and 2 processes: step-1 gradient within 1e-6, 50 losses within 1e-5 (mean) and 1e-3 (largest)"


@pytest.fixture(scope="module")
def still(lab):
    """Models without dropout, whose masks are drawn for whole batches, and rows for 13 epochs of 4 steps."""
    for name, seed, size in (("still-student", 1, 32), ("still-teacher", 2, 48)):
        make_model(seed=seed, hidden_size=size).save_pretrained(lab.folder / name)
        make_tokenizer().save_pretrained(lab.folder / name)
    lab.write_rows("more-rows.jsonl", ROWS)
    return [
        f"student.model={lab.folder}/still-student",
        f"teacher.model={lab.folder}/still-teacher",
        f"data.train={lab.folder}/more-rows.jsonl",
    ]


def run(lab, method, cut, name, *keys, plants=None):
    """Train with a batch of 8 rows that is cut as told."""
    size, accumulation, world = CUTS[cut]
    place = lab.folder / f"{name}-{method}-{cut.replace(' ', '')}"
    cutting = [f"per_device_train_batch_size={size}", f"gradient_accumulation_steps={accumulation}"]
    words = lab.words(place, method, *COMMON, *cutting, *keys)
    ranks = lab.run_ranks(words, world, plants=plants) if world > 1 else [lab.run(words)]
    assert [rank.code for rank in ranks] == [0] * world, "".join(rank.said for rank in ranks)
    return place


def gradient(lab, method, cut, still, *keys):
    sgd = ("max_steps=1", "optim=sgd", f"learning_rate={RATE}", "lr_scheduler_type=constant", "max_grad_norm=0")
    after = load_file(run(lab, method, cut, "gradient", *still, *sgd, *keys) / "model" / "model.safetensors")
    before = load_file(lab.folder / "still-student" / "model.safetensors")
    return {name: (before[name].double() - after[name].double()) / RATE for name in before}


def gap(first, second):
    difference = sum(float((first[name] - second[name]).pow(2).sum()) for name in first)
    return (difference / sum(float(one.pow(2).sum()) for one in first.values())) ** 0.5


def residuals(lab, first, second, method):
    pairs = zip(losses_of(first, method), losses_of(second, method), strict=True)
    found = [b - a for a, b in pairs]
    assert len(found) == 50
    return abs(sum(found)) / 50, max(map(abs, found))


@pytest.mark.parametrize("method", METHODS)
def test_the_cut_changes_nothing(lab, promise, still, method):
    curve = ("max_steps=50", "learning_rate=2e-4", "max_grad_norm=0")
    whole, line = gradient(lab, method, "8 x 1", still), run(lab, method, "8 x 1", "curve", *still, *curve)
    assert whole and any(float(one.abs().max()) > 1e-3 for one in whole.values())
    lost, worst = 0, [0.0, 0.0, 0.0]
    for cut in list(CUTS)[1:]:
        step = gap(whole, gradient(lab, method, cut, still))
        mean, largest = residuals(lab, line, run(lab, method, cut, "curve", *still, *curve), method)
        worst = [max(pair) for pair in zip(worst, (step, mean, largest), strict=True)]
        lost += step > 1e-6 or mean > 1e-5 or largest > 1e-3
    promise(
        ROW,
        len(CUTS) - 1,
        lost,
        "cuts",
        f"{method}: gradient {worst[0]:.1e}, mean {worst[1]:.1e}, largest {worst[2]:.1e}",
    )


def test_a_rank_without_a_valid_token(lab, promise, still, tmp_path):
    """SDFT leaves out the first tokens of a rollout: here all that one rank has, in some steps."""
    keys = ("max_steps=50", "learning_rate=2e-4", "max_grad_norm=0", "skip_completion_tokens=5", *still)
    keys += (f"student.model={eager(lab)}",)
    watch = tmp_path / "counts"
    plants = {rank: {"watch_counts": str(watch)} for rank in range(2)}
    two = run(lab, "sdft", "2 processes", "eager", *keys, plants=plants)
    one = run(lab, "sdft", "4 x 2", "eager", *keys)
    lines = [(tmp_path / f"counts.{rank}").read_text().splitlines() for rank in range(2)]
    counts = [[json.loads(line)["on_policy"] for line in of_rank] for of_rank in lines]
    empty = sum(min(pair) == 0 < max(pair) for pair in zip(*counts, strict=True))
    assert empty > 0
    mean, largest = residuals(lab, one, two, "sdft")
    note = f"sdft, a rank without a token in {empty} of 50 steps: mean {mean:.1e}, largest {largest:.1e}"
    promise(ROW, 1, mean > 1e-5 or largest > 1e-3, "cuts", note)


def eager(lab):
    """A student that soon ends its answers."""
    import torch

    place, tokenizer = lab.folder / "eager-student", make_tokenizer()
    model = make_model(seed=1)
    with torch.no_grad():
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        model.lm_head.weight[end] = 10 * model.lm_head.weight[end]
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place
