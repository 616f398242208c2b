"""Two gloo processes train as one: the same gradients in the first step, the same losses after."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = '''
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
from helpers import ROWS, make_args, make_model, make_tokenizer
from transformers import TrainerCallback
from dudi import DudiTrainer

torch.set_num_threads(1)
folder, method, steps, processes = sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])

class Gradients(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step == 0 and args.process_index == 0:
            inner = getattr(model, "module", model)
            torch.save({n: p.grad for n, p in inner.named_parameters()}, folder + "/gradients.pt")

args = make_args(folder, method, max_steps=steps, cold_start="none", max_grad_norm=0.0, learning_rate=2e-4,
                 per_device_train_batch_size=4 // processes, gradient_accumulation_steps=2, num_train_epochs=100,
                 logging_steps=1000, max_new_tokens=6)
DudiTrainer(make_model(seed=1), make_model(seed=2, hidden_size=48), args, ROWS, None, make_tokenizer(),
            callbacks=[Gradients()]).train()
'''


def run(folder: Path, method: str, steps: int, processes: int) -> tuple[dict, list[float]]:
    folder.mkdir(parents=True)
    script = folder / "worker.py"
    script.write_text(WORKER)
    words = [str(Path(__file__).parent), str(folder), method, str(steps), str(processes)]
    launch = [sys.executable, str(script)]
    if processes > 1:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        launch.append(str(script))
    done = subprocess.run(launch + words, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return torch.load(folder / "gradients.pt", weights_only=True), [record["loss"] for record in records]


@pytest.mark.parametrize(("method", "steps"), [("dudi", 50), ("gkd", 4), ("sdft", 4), ("sft", 4), ("spin", 4), ("seqkd", 4)])
def test_two_processes_train_as_one(method, steps, tmp_path):
    gradients, losses = run(tmp_path / "one", method, steps, 1)
    others, other_losses = run(tmp_path / "two", method, steps, 2)
    gap = sum(float((gradients[n].double() - others[n].double()).pow(2).sum()) for n in gradients) ** 0.5
    size = sum(float(gradients[n].double().pow(2).sum()) for n in gradients) ** 0.5
    assert gap / size < 1e-6
    residuals = [second - first for first, second in zip(losses, other_losses, strict=True)]
    assert len(residuals) == steps
    assert abs(sum(residuals) / len(residuals)) <= 1e-5
    assert max(map(abs, residuals)) <= 1e-3
