"""What a user of lm_eval's command line types: every word is honoured by `dudi eval`, or answered."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from dudi.command import Parser, Verb, dispatch, guarded
from dudi.errors import ConfigError
from dudi.evaluation.harness.options import Options
from dudi.evaluation.records import read_evaluations
from dudi.program.eval import run
from dudi.program.eval_options import add_arguments
from helpers import CHATML, make_model, make_tokenizer
from task_sets import write_parquet

pytest.importorskip("lm_eval")

TABLE = Path(__file__).parents[2] / "docs" / "tasks.md"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """`one`, whose tokenizer has one chat template, `two`, whose has two, and `adapter`, trained for `one`."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("one", "two"):
        make_model("qwen2", seed=4).save_pretrained(folder / name)
    make_tokenizer().save_pretrained(folder / "one")
    tokenizer = make_tokenizer()
    tokenizer.chat_template = {"default": CHATML, "terse": f"Be terse.{CHATML}"}
    tokenizer.save_pretrained(folder / "two")
    base = make_model("qwen2", seed=4)
    base.name_or_path = base.config._name_or_path = str(folder / "one")
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(folder / "adapter")
    return folder


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def dudi(*words):
    verbs = {"eval": Verb("ask a model", add_arguments, run)}
    return guarded(lambda: dispatch(["eval", *map(str, words)], "dudi", verbs, ""), False)


def asked(sets, *words):
    """In Thai, on local data, a question of each task."""
    usual = ("--benchmark", "lm-eval", "--device", "cpu", "--data", sets, "--languages", "th")
    return dudi(*words, *usual)


def found_in(folder):
    (found,) = read_evaluations(folder / "evaluation.json")
    return found


def test_every_word_of_the_installed_command_line_is_honoured_or_answered():
    from lm_eval._cli.run import Run

    theirs = Run(argparse.ArgumentParser().add_subparsers())._parser
    ours = Parser("dudi eval")
    add_arguments(ours)
    words = [word for action in theirs._actions for word in action.option_strings]
    known = {name for action in ours._actions for name in action.option_strings}
    assert len(words) > 40 and [word for word in ours.dashed(words) if word not in known] == []
    told = TABLE.read_text(encoding="utf-8")
    names = [word for word in words if word not in ("-h", "--help")]
    assert [word for word in names if f"`{word}`" not in told and f"`{word} " not in told] == []


ANSWERED = [
    ("--predict_only",),
    ("-x",),
    ("--use_cache", "file"),
    ("-c", "file"),
    ("--cache_requests", "true"),
    ("--cache_requests",),
    ("--check_integrity",),
    ("--verbosity", "DEBUG"),
    ("-v", "DEBUG"),
    ("--confirm_run_unsafe_code",),
    ("--wandb_args", "project=p"),
    ("--wandb_config_args", "a=b"),
    ("--trackio_args", "project=p"),
    ("--hf_hub_log_args", "hub_results_org=o"),
    ("--model", "vllm"),
    ("--model_args", "parallelize=True"),
    ("--output_path", "results.json"),
]


@pytest.mark.parametrize("words", ANSWERED, ids="_".join)
def test_what_dudi_does_otherwise_is_one_line(words, capsys):
    assert dudi("nothing", "--benchmark", "lm-eval", "--tasks", "sib200", *words) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and error.startswith("error: ")
    assert "not an option" not in error and "no such" not in error


def test_a_command_of_lm_eval_as_it_stands(models, sets, tmp_path, capsys):
    """No first word, the model in `--model_args`, an automatic batch size, samples, a preview, the configs."""
    words = ("--model", "hf", "--model_args", f"pretrained={models / 'one'},dtype=float32", "trust_remote_code=False")
    more = ("--tasks", "sib200", "--batch_size", "auto:4", "--max_batch_size", 8, "--num_fewshot", 1, "--log_samples")
    assert asked(sets, *words, *more, "--write_out", "--show_config") == 0
    out = capsys.readouterr().out
    found = found_in(tmp_path / "evals" / "one")
    assert found.about["subject"]["dtype"] == "float32"
    sent = found.about["tasks"]["dudi_sib200_th"]["first_prompt"]
    assert f"--- dudi_sib200_th: the first prompt, up to |\n{sent}|\n--- right: สุขภาพ" in out
    assert '"doc_to_text"' in out and '"configs"' in out
    assert asked(sets, *words, *more, "-w") == 0  # finished: shown, and not asked again
    out = capsys.readouterr().out
    assert sent in out and "holds this evaluation" in out


def test_a_preview_goes_through_the_chat_template(models, sets, tmp_path, capsys):
    words = ("--tasks", "sib200,ntrex_bits", "--apply_chat_template", "--system_instruction", "Short.", "-f", 1, "-w")
    assert asked(sets, models / "one", *words) == 0
    out, about = capsys.readouterr().out, found_in(tmp_path / "evals" / "one").about
    for name in ("dudi_sib200_th", "dudi_ntrex_bits_th"):
        assert about["tasks"][name]["first_prompt"] in out
    assert "<|im_start|>system\nShort.<|im_end|>" in out
    assert (
        dudi(models / "one", "--device", "cpu", "--per-split", 1, "--tasks", "currency", "--languages", "th", "-w") == 0
    )
    out = capsys.readouterr().out
    assert "--- currency th: the first prompt" in out and "<|im_start|>user" in out


def test_single_questions_are_named(models, sets, tmp_path, capsys):
    write_parquet(
        tmp_path / "sib200.parquet",
        [
            {"lang": "th", "split": split, "row": row, "text": f"T {row}", "label": "health"}
            for split in ("train", "dev", "test")
            for row in range(9)
        ],
    )
    (tmp_path / "these.json").write_text('{"dudi_sib200_th": [7, 2]}', encoding="utf-8")
    for place, given in enumerate(('{"dudi_sib200_th": [2, 7]}', "these.json")):
        assert asked(tmp_path, models / "one", "--tasks", "sib200", "--samples", given, "-o", f"out{place}") == 0
        lines = (tmp_path / f"out{place}" / "answers.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["id"] for line in lines] == ["dudi_sib200_th/2", "dudi_sib200_th/7"]
        assert found_in(tmp_path / f"out{place}").benchmark["samples"] == {"dudi_sib200_th": [2, 7]}
    capsys.readouterr()
    wrong = {
        '{"sib200": [1]}': "--samples: no task 'sib200' is asked (did you mean 'dudi_sib200_th'?)",
        '{"dudi_sib200_th": [9]}': "dudi_sib200_th has the questions 0 to 8; got [9]",
        '{"dudi_sib200_th": []}': "dudi_sib200_th has the questions 0 to 8; got none",
        '{"dudi_sib200_th": "all"}': "give the numbers of its questions, as in [0, 3]",
        "nowhere.json": "neither a JSON object nor a file that can be read",
        "{'a': 1}": "is not JSON",
    }
    for given, message in wrong.items():
        assert asked(tmp_path, models / "one", "--tasks", "sib200", "-E", given, "-o", "x") == 2, given
        assert message in capsys.readouterr().err, given
    with pytest.raises(ConfigError, match="--samples and --limit: give one of them"):
        Options(samples={"a": [1]}, limit=3)


def test_an_adapter_beside_its_base(models, sets, tmp_path, capsys):
    one, adapter = models / "one", models / "adapter"
    assert asked(sets, "--tasks", "sib200", "-a", f"pretrained={one},peft={adapter}") == 0
    assert found_in(tmp_path / "evals" / "adapter").model == str(adapter)
    assert asked(sets, "--tasks", "sib200", "-a", f"pretrained={models / 'two'},peft={adapter}", "-o", "x") == 2
    assert "was trained for" in capsys.readouterr().err
    assert asked(sets, "--tasks", "sib200", "-a", f"pretrained={one},dtyp=float32") == 2
    assert "--model-args: dudi has no 'dtyp' (did you mean 'dtype'?)" in capsys.readouterr().err
    assert asked(sets, "--tasks", "sib200") == 2 and "name a model: dudi eval MODEL, or" in capsys.readouterr().err
    assert asked(sets, one, "--tasks", "sib200", "-a", "dtype=bfloat16", "--dtype", "float32") == 2
    assert "--model-args: dtype is bfloat16 there, and float32 beside it" in capsys.readouterr().err


def test_one_of_several_templates(models, sets, tmp_path, capsys):
    words = (models / "two", "--tasks", "sib200", "-w", "--apply_chat_template")
    assert asked(sets, *words, "terse", "-o", "terse") == 0 and "|\nBe terse.<|im_start|>" in capsys.readouterr().out
    assert asked(sets, *words, "-o", "plain") == 0 and "Be terse." not in capsys.readouterr().out
    digests = {found_in(tmp_path / name).about["subject"]["chat_template"] for name in ("terse", "plain")}
    assert len(digests) == 2
    assert asked(sets, *words, "ters", "-o", "x") == 2
    assert "its chat templates are default, terse (did you mean 'terse'?)" in capsys.readouterr().err
    assert asked(sets, models / "one", "--tasks", "sib200", "--apply_chat_template", "terse", "-o", "x") == 2
    assert "its tokenizer has no templates with names" in capsys.readouterr().err
    # a flag in front of the model, which has a value since templates have names
    assert asked(sets, "--tasks", "sib200", "--apply-chat-template", models / "one", "-o", "front") == 0
    with pytest.raises(ConfigError, match="apply_chat_template: is true or false"):
        Options(apply_chat_template="terse")


CONFIG = """
model: hf
model_args: {pretrained: MODEL, dtype: float32}
tasks: [sib200, ntrex_bits]
num_fewshot: 1
limit: 1
batch_size: auto
gen_kwargs: {do_sample: true}
apply_chat_template: true
fewshot_as_multiturn: false
seed: [0, 7, 7, 7]
log_samples: true
use_cache: null
cache_requests: {}
output_path: out
"""


def test_a_file_of_options(models, sets, tmp_path, capsys):
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.replace("MODEL", str(models / "one")), encoding="utf-8")
    assert asked(sets, "--num_fewshot", 0, "--config", file, "--tasks", "sib200") == 0
    found = found_in(tmp_path / "out")
    assert found.keys("task") == ["sib200"] and found.seeds == [7] and found.benchmark["limit"] == 1
    decoding = found.benchmark["decoding"]
    assert decoding["num_fewshot"] == 0 and decoding["gen_kwargs"] == {"do_sample": True}
    assert decoding["apply_chat_template"] and not decoding["fewshot_as_multiturn"]
    for line, message in {
        "predict_only: true": "--predict-only: answers are always scored",
        "num_fewshots: 1": "there is no option 'num_fewshots' (did you mean '--num-fewshot'?)",
        "config: config.yaml": "there is no option 'config'",
        "[]": "is not a mapping of options to values",
    }.items():
        file.write_text(line, encoding="utf-8")
        assert asked(sets, models / "one", "-C", file) == 2
        assert message in capsys.readouterr().err
    assert asked(sets, models / "one", "-C", "nowhere.yaml") == 2 and "nowhere.yaml" in capsys.readouterr().err


def test_what_a_task_is_told_over_its_own_metadata(models, sets, tmp_path):
    words = (models / "one", "--tasks", "sib200", "--metadata", "max_seq_lengths=[16,32]", '{"tokenizer": "t"}')
    assert asked(sets, *words, "--show_config") == 0
    told = {"max_seq_lengths": [16, 32], "tokenizer": "t"}
    assert found_in(tmp_path / "evals" / "one").benchmark["decoding"]["metadata"] == told


def test_what_has_no_effect_is_said(models, sets, tmp_path, capsys):
    assert asked(sets, models / "one", "--tasks", "sib200", "--fewshot_as_multiturn") == 0
    assert "--fewshot-as-multiturn: has no effect without --apply-chat-template" in capsys.readouterr().err
    assert dudi(models / "one", "--batch-size", "auto") == 2
    assert "--batch-size auto: is for lm-eval; give a number for cldr-qa-1" in capsys.readouterr().err
    assert dudi(models / "one", "--batch-size", "many") == 2
    assert "'many' is no whole number" in capsys.readouterr().err
    assert asked(sets, models / "one", "--tasks", "sib200", "--max_batch_size", 0) == 2
    assert "--max-batch-size: must be at least 1, got 0" in capsys.readouterr().err


def test_where_memory_runs_out_batches_are_halved(models, sets, tmp_path, monkeypatch):
    """The same numbers as with room enough."""
    from lm_eval.models.huggingface import HFLM

    from dudi.evaluation import likelihood
    from dudi.evaluation.harness import model as harness_model

    words = (models / "one", "--tasks", "sib200,ntrex_bits,ntrex_to_en", "--max-new-tokens", 2, "--batch-size", "auto")
    assert asked(sets, *words, "-o", "roomy") == 0
    sizes = []

    def small(work, size_of):
        def limited(*args, **kwargs):
            sizes.append(size_of(*args))
            if sizes[-1] > 1:
                raise torch.OutOfMemoryError("no room")
            return work(*args, **kwargs)

        return limited

    monkeypatch.setattr(likelihood, "_shared", small(likelihood._shared, lambda model, head, own: len(own)))
    monkeypatch.setattr(harness_model, "text_nats", small(harness_model.text_nats, lambda model, part: len(part)))
    whole = HFLM.generate_until

    def generate(self, requests, **kwargs):
        return small(whole, lambda *_: self.batch_size)(self, requests, **kwargs)

    monkeypatch.setattr(HFLM, "generate_until", generate)
    assert asked(sets, *words, "-o", "narrow") == 0
    roomy, narrow = (found_in(tmp_path / name) for name in ("roomy", "narrow"))
    assert sizes.count(2) == 6 and sizes[-1] == 1  # two texts, in batches of 64, 32, 16, 8, 4, and 2
    for metric in ("acc", "bits_per_byte", "chrf"):
        assert narrow.values(metric, "overall") == pytest.approx(roomy.values(metric, "overall"), rel=1e-5)
    for name in ("_shared", "_whole"):
        monkeypatch.setattr(likelihood, name, small(getattr(likelihood, name), lambda *_: 2))
    with pytest.raises(torch.OutOfMemoryError):
        likelihood.costs(make_model("qwen2", seed=4).eval(), [likelihood.LikelihoodQuestion([1], [[2, 3], [4, 5]])])
