"""Run jobs in several processes. What they share, a file's lock guards: no job waits for another's end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from dudi.evaluation.records import Evaluation
from dudi.study.jobs import AnyJob
from dudi.study.stacks import StackVerbs

Told = Callable[[AnyJob, list[Evaluation] | BaseException], None]
"""Called after each job with what it found, or what went wrong."""


def run_jobs(
    jobs: Sequence[AnyJob],
    runs: Path,
    *,
    at_once: int,
    threads: int,
    keep_models: bool,
    told: Told,
    verbs: StackVerbs | None = None,
) -> list[AnyJob]:
    """Do jobs that are not done yet, in order, so many at once with so many threads each; returns those that failed.

    `told` hears of each job that ends. `keep_models` and `verbs` are as in `worker.run_job`; the verbs are a function
    of a module, since it goes to other processes.
    """
    failed: list[AnyJob] = []
    pool = _pool(at_once, threads)
    try:
        running = {pool.submit(_run, job, runs, keep_models, verbs): job for job in jobs}
        for future in as_completed(running):
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                raise error
            failed += [running[future]] if error is not None else []
            told(running[future], error or future.result())
    finally:
        pool.shutdown(cancel_futures=True)  # whoever stops it waits for those alone that have begun
    return failed


def _pool(at_once: int, threads: int) -> ProcessPoolExecutor:
    # The child reads this before it imports torch: more threads than cores would make every job slower.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(at_once, mp_context=context, initializer=_begin, initargs=(threads,))


def _begin(threads: int) -> None:
    # Ctrl-C reaches all processes of a terminal: the first one says that it has stopped. A training that has begun
    # (`Interrupts`) saves its step before it ends.
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()


def _leave_with(parent: int) -> None:
    """End this process when the one that asked for it is gone: it would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _run(job: AnyJob, runs: Path, keep_models: bool, verbs: StackVerbs | None) -> list[Evaluation]:
    from dudi.study.worker import run_job

    return run_job(job, runs, keep_models=keep_models, verbs=verbs)
