"""The committed losses of 50 steps of every method: exact on the build that wrote them, close elsewhere.

A change that moves them must say so, and regenerate them: `python tests/trust/test_references.py`.
"""

import json
import platform
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import pytest
import torch
from lab import Lab, losses_of

from dudi.objective.methods import METHODS

FOLDER = Path(__file__).parents[1] / "references"
STEPS = 50
KEYS = ("max_steps=50", "num_train_epochs=13", "spin_iterations=13", "cold_start=none", "save_strategy=no")
FIRST, CLOSE, FAR = 5, 1e-4, 0.25
"""Elsewhere the kernels round differently. Until a sampled token flips, that moves a loss by less than 1e-4; then two
runs write different rollouts, and only their means can be compared."""


def build():
    """What decides how sums are rounded."""
    return {
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "processor": processor(),
        "system": platform.system(),
    }


def processor():
    """Its maker and kind: libraries choose their kernels by them, too."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    known = dict(map(str.strip, line.split(":", 1)) for line in reversed(lines) if ":" in line)
    return " ".join(known.get(key, "") for key in ("vendor_id", "cpu family", "model")).strip() or platform.processor()


def losses(lab, method):
    run = lab.folder / f"reference-{method}"
    child = lab.run(lab.words(run, method, *KEYS), seconds=300)
    assert child.code == 0, child.said
    return losses_of(run, method)


@pytest.mark.parametrize("method", METHODS)
def test_the_losses_are_the_committed_ones(lab, promise, method):
    kept = json.loads((FOLDER / f"{method}.json").read_text(encoding="utf-8"))
    found = losses(lab, method)
    assert len(found) == len(kept["losses"]) == STEPS
    if kept["build"] == build():
        wrong = sum(a != b for a, b in zip(found, kept["losses"], strict=True))
        how = "exact"
    else:
        near = [abs(a - b) <= CLOSE * abs(b) for a, b in zip(found, kept["losses"], strict=True)][:FIRST]
        mean = sum(found) / STEPS, sum(kept["losses"]) / STEPS
        wrong = near.count(False) + (abs(mean[0] - mean[1]) > FAR * abs(mean[1]))
        how = f"another build: the first {FIRST} within {CLOSE:g}, the mean within {FAR:.0%}"
    promise("committed losses of 50 steps", STEPS, wrong, "losses", f"{method} ({how})")


def main():
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(folder)
        for method in METHODS:
            kept = {"command": "python tests/trust/test_references.py", "build": build(), "keys": KEYS}
            kept["losses"] = losses(lab, method)
            text = json.dumps(kept, indent=1) + "\n"
            (FOLDER / f"{method}.json").write_text(text, encoding="utf-8")
            print(method, kept["losses"][0], kept["losses"][-1])
        lab.server.close()


if __name__ == "__main__":
    main()
