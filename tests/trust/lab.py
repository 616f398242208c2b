"""Runs of the real command line in a folder: start, kill, resume, compare."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from helpers import ROWS, make_model, make_tokenizer, words_read_by
from ranks import environments

HERE = Path(__file__).parent
METHODS_OF_THE_PROMISE = ("sft", "spin", "sdft", "gkd", "dudi")
TIMES = ("time/", "tokens_per_second", "memory/")


def quiet_environment():
    """The environment of a run that neither asks the network nor uses more than one thread."""
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    return {**os.environ, **quiet}


class Server:
    """The process that forks (`server.py`)."""

    def __init__(self):
        paths = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**quiet_environment(), "PYTHONPATH": paths},
        )
        assert json.loads(self.process.stdout.readline())["ready"]

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=10)


class Child:
    """One process of a run."""

    def __init__(self, server, words, out, env, plant):
        self.server, self.out, self.code = server, Path(out), None
        self.pid = server.ask(words=words, out=str(out), env=env, plant=plant)["pid"]
        self.started = time.monotonic()

    def wait(self, seconds=120.0):
        """Its exit code (negative: the signal that ended it); None if it still runs after so many seconds."""
        if self.code is None:
            self.code = self.server.ask(wait=self.pid, seconds=seconds)["code"]
            self.ended = time.monotonic()
        return self.code

    def signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self):
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        return self.wait()

    @property
    def said(self):
        return self.out.read_text(encoding="utf-8", errors="replace") if self.out.is_file() else ""


class Lab:
    """A folder with tiny models and rows, and the server that runs things with them."""

    def __init__(self, folder, server=None):
        self.folder, self.server = Path(folder), server or Server()
        self.number = 0
        self.kept = {}
        tokenizer = make_tokenizer()
        for name, seed, size in (("student", 1, 32), ("teacher", 2, 48)):
            make_model(seed=seed, hidden_size=size, dropout=0.1).save_pretrained(self.folder / name)
            tokenizer.save_pretrained(self.folder / name)
        self.write_rows("rows.jsonl", ROWS[:16])
        lines = [f"student: {{model: {self.folder}/student}}", f"teacher: {{model: {self.folder}/teacher}}"]
        lines += [f"data: {{train: {self.folder}/rows.jsonl}}"]
        self.recipe = self.folder / "tiny.yaml"
        self.recipe.write_text("\n".join(lines) + "\n", encoding="utf-8")

    quiet_environment = property(lambda self: quiet_environment())

    def wait_for(self, path, process, seconds=120.0):
        """Until a file is there, or the process that should write it has ended."""
        end = time.monotonic() + seconds
        while not path.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)

    def write_rows(self, name, rows):
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        (self.folder / name).write_text(text, encoding="utf-8")

    def words(self, run, method, *more):
        """A command line: 12 steps, 4 steps an epoch, a checkpoint every 3 steps, two of them kept."""
        keys = {
            "method": method,
            "max_steps": "12",
            "num_train_epochs": "3",
            "spin_iterations": "3",
            "per_device_train_batch_size": "2",
            "gradient_accumulation_steps": "2",
            "learning_rate": "1e-3",
            "max_new_tokens": "8",
            "max_length": "256",
            "save_strategy": "steps",
            "save_steps": "3",
            "save_total_limit": "2",
            "use_cpu": "true",
            "disable_tqdm": "true",
            "seed": "3",
        }
        keys |= dict(word.split("=", 1) for word in more if "=" in word and not word.startswith("-"))
        options = [word for word in more if word.startswith("-")]
        given = words_read_by(method, [f"{k}={v}" for k, v in keys.items()])
        return ["train", str(self.recipe), *given, *options, "--output", str(run)]

    def start(self, words, *, cache=None, env=None, plant=None):
        self.number += 1
        env = {"DUDI_CACHE": str(cache or self.folder / f"cache-{self.number}"), **(env or {})}
        return Child(self.server, words, self.folder / f"out-{self.number}.txt", env, plant or {})

    def run(self, words, *, cache=None, env=None, plant=None, seconds=120.0):
        child = self.start(words, cache=cache, env=env, plant=plant)
        assert child.wait(seconds) is not None, f"still running after {seconds} s: {child.said}"
        return child

    def start_ranks(self, words, world=2, *, cache=None, env=None, plants=None):
        """The processes of a distributed run, as torchrun would start them."""
        ranks = []
        for rank, own in enumerate(environments(world)):
            plant, shared = (plants or {}).get(rank, {}), cache or self.folder / f"cache-w{own['MASTER_PORT']}"
            ranks.append(self.start(words, cache=shared, env=own | (env or {}), plant=plant))
        return ranks

    def run_ranks(self, words, world=2, **options):
        ranks = self.start_ranks(words, world, **options)
        for rank in ranks:
            assert rank.wait() is not None, rank.said
        return ranks


def weights_of(run):
    """SHA-256 of the final weights, or None."""
    path = Path(run) / "model" / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def records_of(run, name="metrics.jsonl"):
    path = Path(run) / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def numbers_of(run):
    """All that the run's metrics say, except how long it took and whether the cold start came from the cache."""
    kept = []
    for record in records_of(run):
        kept.append({k: v for k, v in record.items() if not k.startswith(TIMES) and k != "cached"})
    return kept


def losses_of(run, stage):
    return [record["loss"] for record in records_of(run) if record["stage"] == stage]


def where(run):
    """What a run was doing when it was killed, from what it has left."""
    run = Path(run)
    records = list(_whole_lines(run / "metrics.jsonl"))
    stage, step = (records[-1]["stage"], records[-1]["step"]) if records else ("before the first step", 0)
    inside = sorted(p.relative_to(run).as_posix() for p in run.rglob(".*.partial")) if run.is_dir() else []
    if (run / "model" / "manifest.json").is_file():
        stage = "after the final model"
    return f"{stage} {step}" + (f", inside a save of {inside[0]}" if inside else "")


def _whole_lines(path):
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with contextlib.suppress(json.JSONDecodeError):
                yield json.loads(line)
