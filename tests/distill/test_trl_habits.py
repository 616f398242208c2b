"""A script that was written for TRL's GKD trainer runs here: the import and the config's class are all that changes."""

import json
import math
import os
import warnings

import pytest
import torch

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

TRL = "from trl.experimental.gkd import GKDConfig as Config, GKDTrainer as Trainer"
DUDI = "from dudi import DudiConfig as Config, DudiTrainer as Trainer"
SCRIPT = """
import json
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

IMPORT

def rows(count, start=0):
    said = [(f"Apa nomor {n}?", f"Nomor {n}, tentu.") for n in range(start, start + count)]
    return [
        {"id": str(n), "language": "id", "messages": [
            {"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for n, (question, answer) in enumerate(said)
    ]


class Watch(TrainerCallback):
    seen = []

    def on_step_end(self, args, state, control, **kwargs):
        self.seen.append(state.global_step)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.seen.append(sorted(metrics))


dataset = DatasetDict(train=Dataset.from_list(rows(16)), test=Dataset.from_list(rows(8, start=16)))
tokenizer = AutoTokenizer.from_pretrained(FOLDER / "student")
args = Config(
    output_dir=str(FOLDER / "out"),
    learning_rate=1e-3,
    lr_scheduler_type="cosine",
    warmup_steps=1,
    per_device_train_batch_size=2,
    per_device_eval_batch_size=4,
    gradient_accumulation_steps=2,
    max_steps=4,
    max_length=128,
    max_new_tokens=8,
    lmbda=0.5,
    temperature=0.9,
    logging_steps=1,
    eval_strategy="steps",
    eval_steps=2,
    save_strategy="steps",
    save_steps=2,
    report_to="none",
    gradient_checkpointing=GRADIENT_CHECKPOINTING,
    use_cpu=True,
    bf16=False,
    seed=3,
    disable_tqdm=True,
)
trainer = Trainer(
    model=str(FOLDER / "student"),
    teacher_model=AutoModelForCausalLM.from_pretrained(FOLDER / "teacher"),
    args=args,
    train_dataset=dataset["train"],
    eval_dataset=dataset["test"],
    processing_class=tokenizer,
    callbacks=[Watch()],
    peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if LORA else None,
)
assert trainer.is_world_process_zero() and trainer.accelerator.num_processes == 1
before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
output = trainer.train()
trainer.log_metrics("train", output.metrics)
trainer.save_metrics("train", output.metrics)
trainer.save_state()
report["train_loss"] = output.training_loss
report["steps"] = trainer.state.global_step
report["losses"] = [one["loss"] for one in trainer.state.log_history if "loss" in one]
report["moved"] = any(not torch.equal(before[n], p) for n, p in trainer.model.named_parameters() if n in before)
report["seen"] = [one for one in Watch.seen if isinstance(one, int)]
report["evaluated"] = sum(isinstance(one, list) and "eval_loss" in one for one in Watch.seen)
own = trainer.evaluate()
trainer.log_metrics("eval", own)
report["own"], report["other"] = own["eval_loss"], trainer.evaluate(dataset["test"].select(range(4)))["eval_loss"]
report["named"] = sorted(k for k in trainer.evaluate({"a": dataset["test"]}) if k.endswith("_loss"))

trainer.save_model(str(FOLDER / "saved"))
trainer.processing_class.save_pretrained(FOLDER / "saved")
loaded = AutoModelForCausalLM.from_pretrained(FOLDER / "saved")
ids = torch.tensor([[40, 41, 42, 43]])
with torch.no_grad():
    mine, theirs = trainer.model.eval()(input_ids=ids).logits, loaded.eval()(input_ids=ids).logits
report["apart"] = float((mine - theirs).abs().max())

args.max_steps = 6
again = Trainer(
    model=AutoModelForCausalLM.from_pretrained(FOLDER / "student"),
    teacher_model=str(FOLDER / "teacher"),
    args=args,
    train_dataset=dataset["train"],
    eval_dataset={"one": dataset["test"], "two": dataset["test"].select(range(2))},
    processing_class=tokenizer,
    peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if LORA else None,
)
again.train(resume_from_checkpoint=True)
report["resumed"] = again.state.global_step
report["resumed_evaluations"] = sorted({k for one in again.state.log_history for k in one if k.endswith("_loss")})
"""


@pytest.fixture
def folder(tmp_path):
    from helpers import make_model, make_tokenizer

    tokenizer = make_tokenizer()
    for name, model in (("student", make_model(seed=1)), ("teacher", make_model(seed=2, hidden_size=48))):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("gradient_checkpointing", "lora"),
    [
        (True, True),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((False, False), (True, False), (False, True))),
    ],
    ids=["lora-checkpointing", "full", "full-checkpointing", "lora"],
)
@pytest.mark.parametrize("line", [TRL, DUDI], ids=["trl", "dudi"])
def test_the_same_script_runs_with_both(line, gradient_checkpointing, lora, folder):
    report = {}
    names = {"FOLDER": folder, "GRADIENT_CHECKPOINTING": gradient_checkpointing, "LORA": lora, "report": report}
    exec(compile(SCRIPT.replace("IMPORT", line), "script.py", "exec"), names)
    assert (report["steps"], report["seen"], report["resumed"]) == (4, [1, 2, 3, 4], 6)
    assert len(report["losses"]) == 4 and all(math.isfinite(loss) for loss in report["losses"])
    assert math.isfinite(report["train_loss"]) and report["moved"]
    assert report["evaluated"] == 2
    assert report["own"] != report["other"]
    assert report["named"] == ["eval_a_loss"]
    assert report["apart"] < 1e-4
    assert {"eval_one_loss", "eval_two_loss"} <= set(report["resumed_evaluations"])
    assert json.loads((folder / "out" / "train_results.json").read_text())["train_loss"] == report["train_loss"]
    assert (folder / "out" / "trainer_state.json").is_file()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_whose_trained_weights_are_rounded_is_warned_of(dtype, tmp_path):
    """transformers 5 loads a model in its files' precision; a name is loaded in float32, and an adapter is made so."""
    from peft import LoraConfig

    from dudi import DudiTrainer
    from helpers import ROWS, make_args, make_model, make_tokenizer

    def make(model, **keys):
        return DudiTrainer(model, None, make_args(tmp_path, "sft"), ROWS[:8], processing_class=make_tokenizer(), **keys)

    with pytest.warns(UserWarning, match=f"its trained weights are {str(dtype)[6:]}, .* dtype=torch.float32"):
        make(make_model().to(dtype))
    make_model().to(dtype).save_pretrained(tmp_path / "student")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*trained weights are")
        make(make_model())
        make(tmp_path / "student")
        make(make_model().to(dtype), peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
