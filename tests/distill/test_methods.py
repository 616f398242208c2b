"""The seven methods are what Table 1 and the paper's settings say, and docs/method.md says the same."""

import math
import re
from pathlib import Path

import pytest

from dudi import DudiConfig, DudiTrainer
from dudi.distill.arguments import SIGNALS, build_signals
from dudi.distill.keys import METHOD_KEYS, method_default
from dudi.distill.recipe import load_run_config
from dudi.distill.step import weights_of_step
from dudi.errors import ConfigError
from dudi.objective.methods import METHODS
from dudi.training.runlog import read_jsonl
from helpers import ROWS, make_args, make_model, make_tokenizer

DOC = Path(__file__).parents[2] / "docs" / "method.md"

# Written out, not derived: the weights and defaults of each method, one row each.
TABLE = {
    # weights in Eq. 8, targets, loss on them, D, verbalizer, teacher, cold start, mixing, skipped tokens
    "sft": ({"off_policy": 1.0}, "gold", "cross_entropy", None, "none", "none", "none", "sum", 0),
    "dft": ({"off_policy": 1.0}, "gold", "dft", None, "none", "none", "none", "sum", 0),
    "spin": ({"sequence": 1.0}, "gold", None, None, "none", "none", "sft", "sum", 0),
    "sdft": ({"on_policy": 1.0}, "gold", None, "forward_kl", "english", "ema", "sft", "sum", 3),
    "seqkd": ({"off_policy": 1.0}, "teacher", "divergence", "jsd", "none", "model", "sft", "sum", 0),
    "gkd": ({"off_policy": 0.5, "on_policy": 0.5}, "gold", "divergence", "jsd", "none", "model", "sft", "sample", 0),
    "dudi": (
        {"sequence": 0.1, "off_policy": 0.5, "on_policy": 0.5},
        *("gold", "divergence", "reverse_kl", "cross_lingual", "model", "sft", "sum", 0),
    ),
}


def test_the_papers_seven_and_ours():
    assert [*TABLE, "gated"] == list(METHODS)
    assert list(TABLE) == ["sft", "dft", "spin", "sdft", "seqkd", "gkd", "dudi"]


@pytest.mark.parametrize("method", TABLE)
def test_a_method_resolves_to_its_row(tmp_path, method):
    signals, targets, loss, distance, verbalizer, teacher, cold_start, mixing, skipped = TABLE[method]
    args = make_args(tmp_path, method)
    assert args.signals == signals
    assert args.targets == targets
    assert loss is None or args.off_policy_loss == loss
    assert distance is None or args.divergence == distance
    assert args.verbalizer == verbalizer
    assert METHODS[method].teacher == teacher
    assert args.cold_start == cold_start
    assert args.mixing == mixing
    assert args.skip_completion_tokens == skipped
    assert args.needs_teacher == (teacher == "model")
    assert (args.spin_beta, args.beta, args.loss_average) == (0.1, 0.5, "token")


def test_what_holds_for_all_methods(tmp_path):
    """Appendix B, and the defaults for what it leaves open."""
    args = DudiConfig(output_dir=str(tmp_path), use_cpu=True)
    assert args.method == "dudi"
    assert (args.learning_rate, args.num_train_epochs) == (2e-5, 3.0)
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps == 32
    assert (args.max_length, args.max_new_tokens, args.teacher_max_length) == (1024, 256, 2560)
    assert (args.temperature, args.kd_temperature) == (0.9, 1.0)
    assert (args.spin_iterations, args.ema_rate, args.overlap_k) == (3, 0.01, 16)
    assert not args.share_rollouts


def test_an_iterated_method_runs_one_epoch_an_iteration(tmp_path):
    assert make_args(tmp_path, "spin", spin_iterations=2).num_train_epochs == 2
    assert [name for name, method in METHODS.items() if method.iterated] == ["spin"]


def test_every_default_names_a_key_that_depends_on_the_method():
    for method in METHODS.values():
        assert method.defaults.keys() <= METHOD_KEYS
        assert method.signals <= set(SIGNALS)


@pytest.mark.parametrize("name", SIGNALS)
def test_without_leaves_the_other_weights(tmp_path, name):
    args = make_args(tmp_path, "dudi", without=[name])
    assert args.signals == {key: weight for key, weight in TABLE["dudi"][0].items() if key != name}
    assert (args.alpha, args.lmbda) == (0.1, 0.5)
    assert list(build_signals(args)) == list(args.signals)


@pytest.mark.parametrize(
    ("keys", "left"),
    [
        ({"alpha": 0.0}, {"off_policy": 0.5, "on_policy": 0.5}),
        ({"lmbda": 0.0}, {"sequence": 0.1, "off_policy": 1.0}),
        ({"lmbda": 1.0}, {"sequence": 0.1, "on_policy": 1.0}),
        ({"lmbda": 0.25}, {"sequence": 0.1, "off_policy": 0.75, "on_policy": 0.25}),
    ],
)
def test_weight_zero_removes_a_signal(tmp_path, keys, left):
    args = make_args(tmp_path, "dudi", **keys)
    assert args.signals == left
    assert list(build_signals(args)) == list(left)


def test_a_signal_of_weight_zero_is_neither_rolled_out_nor_scored(tmp_path):
    args = make_args(tmp_path, "dudi", cold_start="none", alpha=0.0, max_steps=1)
    trainer = DudiTrainer(make_model(seed=1), make_model(seed=2), args, ROWS[:8], processing_class=make_tokenizer())
    kinds, collect = set(), trainer.run.collector.collect

    def listening(*given, **keys):
        collected = collect(*given, **keys)
        for batch in collected.batches:
            kinds.update(batch.sequences)
        return collected

    trainer.run.collector.collect = listening
    trainer.train()
    assert kinds == {"gold", "verbalized"}
    assert trainer.run.reference is None
    record = read_jsonl(tmp_path / "metrics.jsonl")[0]
    assert "loss/sequence" not in record and {"loss/off_policy", "loss/on_policy"} <= record.keys()


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("dudi", {"without": ["sequence", "off_policy", "on_policy"]}),
        ("sft", {"lmbda": 1.0}),
        ("spin", {"alpha": 0.0}),
        ("sdft", {"without": ["on_policy"]}),
    ],
)
def test_a_method_without_any_signal_is_refused(tmp_path, method, keys):
    with pytest.raises(ConfigError, match="no signal is left"):
        make_args(tmp_path, method, **keys)


def test_a_given_key_wins_over_the_methods_own(tmp_path):
    args = make_args(tmp_path, "gkd", divergence="reverse_kl", cold_start="none")
    assert (args.divergence, args.cold_start, args.mixing) == ("reverse_kl", "none", "sample")


def test_the_loss_on_the_targets_needs_no_teacher_when_it_is_cross_entropy(tmp_path):
    """SeqKD with cross-entropy still needs the teacher: it writes the targets (Kim and Rush 2016)."""
    assert make_args(tmp_path, "seqkd", off_policy_loss="cross_entropy").needs_teacher
    assert not make_args(tmp_path, "gkd", lmbda=0.0, off_policy_loss="cross_entropy").needs_teacher
    assert make_args(tmp_path, "sft", cold_start="teacher_sft").needs_teacher


@pytest.mark.parametrize("method", METHODS)
def test_another_method_resets_what_was_inherited(tmp_path, method):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("student: a\nteacher: b\ndata: rows.jsonl\nmethod: gkd\nlambda: 0.25\n")
    args = load_run_config(recipe, [f"method={method}"]).dudi_config(tmp_path / "run", use_cpu=True)
    assert args.method == method
    if METHODS[method].signals & {"off_policy", "on_policy"}:
        assert args.lmbda == 0.25, "given in the recipe, and so it stays"
    else:
        assert args.lmbda == 0.0, "nothing of this method reads it"
    for key in METHOD_KEYS - {"lmbda"}:
        assert getattr(args, key) == method_default(method, key), key


def test_mixing_sample_tosses_one_coin_a_step(tmp_path):
    args = make_args(tmp_path, "gkd", lmbda=0.3)
    tosses = [weights_of_step(args, step) for step in range(1, 2001)]
    assert all(toss in ({"off_policy": 1.0}, {"on_policy": 1.0}) for toss in tosses)
    share = sum("on_policy" in toss for toss in tosses) / len(tosses)
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / len(tosses))
    assert tosses == [weights_of_step(args, step) for step in range(1, 2001)]
    other = make_args(tmp_path, "gkd", lmbda=0.3, seed=4)
    assert tosses != [weights_of_step(other, step) for step in range(1, 2001)]


def test_mixing_leaves_the_sequence_signal_and_sums_by_default(tmp_path):
    sampled = weights_of_step(make_args(tmp_path, "dudi", mixing="sample"), 1)
    assert sampled["sequence"] == 0.1 and len(sampled) == 2
    assert weights_of_step(make_args(tmp_path, "dudi"), 1) == TABLE["dudi"][0]
    assert weights_of_step(make_args(tmp_path, "gkd", mixing="sum"), 1) == TABLE["gkd"][0]


# ---- the page


def _table(heading):
    """The cells of the table under a heading of the page, by the name in each row's column at the left."""
    section = DOC.read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    head, _, *body = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {row[0].strip("`"): dict(zip(head, row, strict=True)) for row in body}


@pytest.mark.parametrize("method", TABLE)
def test_the_page_shows_each_methods_own_defaults(tmp_path, method):
    args, row = make_args(tmp_path, method), _table("The seven methods")[method]
    has = METHODS[method].signals
    token = has & {"off_policy", "on_policy"}
    needs_distance = "on_policy" in has or ("off_policy" in has and args.off_policy_loss == "divergence")
    expected = {
        "alpha": f"{args.alpha:g}" if "sequence" in has else "",
        "lambda": f"{args.lmbda:g}" if token else "",
        "targets": args.targets if has & {"off_policy", "sequence"} else "",
        "off-policy loss": args.off_policy_loss if "off_policy" in has else "",
        "D": args.divergence if needs_distance else "",
        "verbalizer": args.verbalizer if "on_policy" in has else "",
        "teacher": {"none": "", "ema": "EMA of the student", "model": "larger"}[METHODS[method].teacher],
        "cold start": args.cold_start,
        "mixing": args.mixing if len(token) == 2 else "",
        "skip": str(args.skip_completion_tokens) if "on_policy" in has else "",
    }
    shown = {key: value.strip("`") for key, value in row.items() if key != "method"}
    assert shown == expected


def test_every_key_that_the_page_names_exists(tmp_path):
    """`key: value` in the text must be accepted by the config."""
    named = set(re.findall(r"`([a-z_]+): ([a-z_0-9.\[\]]+)`", DOC.read_text(encoding="utf-8")))
    assert len(named) > 15
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("student: a\nteacher: b\ndata: rows.jsonl\n")
    for key, value in sorted(named):
        load_run_config(recipe, [f"{key}={value}"])
