"""A terminal that goes away in the middle of a run (ssh drops)."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

import dudi
from helpers import ROWS

MINI = Path(dudi.__file__).parent / "mini"


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [True, False], ids=["nohup", "plain"])
def test_a_run_outlives_its_terminal(ignored, tmp_path):
    """With SIGHUP ignored all steps are made and the model is saved; else there is a checkpoint to go on from."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"student: {MINI}/base\ndata: {rows}\nmethod: sft\nper_device_train_batch_size: 2\n")
    words = [sys.executable, "-m", "dudi", "train", str(recipe), "max_steps=40", "save_steps=25"]
    words += ["gradient_accumulation_steps=1", "--output", str(tmp_path / "run")]
    master, slave = pty.openpty()

    def own_terminal():
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        if ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = subprocess.Popen(
        words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=own_terminal
    )
    os.close(slave)
    seen, end = b"", time.monotonic() + 120
    while not re.search(rb"[1-9]/40", seen) and time.monotonic() < end:  # a step is done: there is something to save
        if select.select([master], [], [], 1)[0]:
            seen += os.read(master, 65536)
    os.close(master)
    code = process.wait(240)
    assert re.search(rb"[1-9]/40", seen), seen[-2000:]
    if ignored:
        assert code == 0
        assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
        assert (tmp_path / "run" / "report.html").is_file()
    else:
        assert code == 130
        assert len(list((tmp_path / "run" / "checkpoints").glob("step-*/manifest.json"))) == 1
