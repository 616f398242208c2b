"""What a child of `server.py` can be told to do to itself: die at a file operation, meet a bad number, be watched."""

import contextlib
import json
import os
import signal
import subprocess
import sys


class Boundaries:
    """Counts the file operations below a folder, as Python's audit events tell them before they happen.

    Args:
        folder: The run's folder.
        at: Before which operation something happens; None: it is only counted.
        do: What happens: `kill`, `fill` (the disk), `readonly` (the disk), `vanish` (the folder is moved away).
        record: A file to write the operations to.
        only: Parts of paths of which one must be in an operation's path.
    """

    def __init__(self, folder, at=None, do="kill", record=None, only=("",)):
        self.folder, self.at, self.do, self.only = os.path.realpath(folder), at, do, only
        self.count = 0
        self.record = None if record is None else os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def __call__(self, event, args):
        if event not in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link"):
            return
        path = args[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(path))
        # A file that is opened for reading inside a save is one that is synced: a boundary as well.
        if not path.startswith(self.folder) or not any(part in path for part in self.only):
            return
        self.count += 1
        if self.record is not None:
            os.write(self.record, f"{event} {os.path.relpath(path, self.folder)}\n".encode())
        if self.count == self.at:
            ACCIDENTS[self.do](self.folder)


def _fill(folder):
    """Write beside the run until nothing fits any more."""
    file = os.open(os.path.join(os.path.dirname(folder), "ballast"), os.O_WRONLY | os.O_CREAT, 0o644)
    for size in (1 << 16, 1 << 12, 1):
        with contextlib.suppress(OSError):
            while os.write(file, b"x" * size) == size:
                pass
    os.close(file)


def _readonly(folder):
    """Mount the disk anew, read-only."""
    subprocess.run(["mount", "-o", "remount,ro", os.path.dirname(folder)], check=False)


ACCIDENTS = {
    "kill": lambda folder: os.kill(os.getpid(), signal.SIGKILL),
    "fill": _fill,
    "readonly": _readonly,
    "vanish": lambda folder: os.rename(folder, folder + ".away"),
}


def boundaries(value):
    """Record the file operations below a folder, or have an accident before one of them."""
    sys.addaudithook(Boundaries(**value))


def order_of_syncs(value):
    """Write what is synced and what is renamed, a line each, in their order.

    Args:
        value: `folder`, below which, and `record`, the file to write to.
    """
    honest, folder = os.fsync, os.path.realpath(value["folder"])
    record = os.open(value["record"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def tell(what, path):
        if path.startswith(folder):
            os.write(record, f"{what} {os.path.relpath(path, folder)}\n".encode())

    def fsync(descriptor):
        honest(descriptor)
        tell("sync", os.readlink(f"/proc/self/fd/{descriptor}"))

    os.fsync = fsync
    sys.addaudithook(lambda event, args: event == "os.rename" and tell("rename", os.path.realpath(args[0])))


def poison(value):
    """Make one number bad at one step: in the loss, in a gradient, in the teacher's or the student's output.

    Args:
        value: `where`, `step`, `number` (nan, inf), `rank` that meets it, and `stage`.
    """
    import torch

    from dudi.distill import passes, trainer

    number = float(value["number"])

    def due(one):
        step = one.step.number if one.step is not None else 0
        rank = one.args.process_index
        return step == value["step"] and one.stage == value["stage"] and rank == value["rank"]

    if value["where"] in ("teacher", "loss"):
        now, honest = [False], (trainer.DudiTrainer.compute_loss, trainer.losses_of, passes.teacher_states)

        def compute_loss(one, *args, **kwargs):
            now[0] = due(one)
            return honest[0](one, *args, **kwargs)

        def losses_of(*args, **kwargs):
            out = honest[1](*args, **kwargs)
            if now[0] and value["where"] == "loss":
                out["sums"] = {name: total * number for name, total in out["sums"].items()}
            return out

        def teacher_states(*args, **kwargs):
            states, head = honest[2](*args, **kwargs)
            for rows in states.values() if now[0] and value["where"] == "teacher" else ():
                rows[0, 0] = number
            return states, head

        trainer.DudiTrainer.compute_loss = compute_loss
        trainer.losses_of, passes.teacher_states = losses_of, teacher_states
    if value["where"] == "gradient":
        honest_step = trainer.DudiTrainer.training_step

        def training_step(one, *args, **kwargs):
            bad = due(one)
            if bad:  # as a hook of backward: before DDP sums the ranks' gradients
                weight = next(p for p in one.model.parameters() if p.requires_grad)
                handle = weight.register_hook(lambda gradient: torch.full_like(gradient, number))
            loss = honest_step(one, *args, **kwargs)
            if bad:
                handle.remove()
            return loss

        trainer.DudiTrainer.training_step = training_step


def watch_counts(path):
    """Write what each step would be divided by on this rank alone: a line a step, per signal."""
    from dudi.distill import trainer

    honest = trainer.begin_step

    def begin_step(run, micro_batches, epoch):
        step = honest(run, micro_batches, epoch)
        own = {
            name: sum(signal.count(batch.summed_weights(), batch.pairs) for batch in step.collected.batches)
            for name, signal in step.signals.items()
        }
        with open(f"{path}.{run.args.process_index}", "a") as file:
            file.write(json.dumps(own) + "\n")
        return step

    trainer.begin_step = begin_step


def threads(number):
    """How many threads torch uses."""
    import torch

    torch.set_num_threads(number)
