"""Run jobs in several processes. What they share, a file's lock guards: no job waits for another's end."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from dudi.evaluation.records import Evaluation
from dudi.study.jobs import Job

Told = Callable[[Job, list[Evaluation] | BaseException, float], None]
"""Called after each job with what it found, or what went wrong, and the seconds it took."""


def run_jobs(
    jobs: Sequence[Job], runs: Path, *, at_once: int, threads: int, keep_models: bool, told: Told
) -> list[Job]:
    """Do jobs, in order.

    Args:
        jobs: Those that are not done yet.
        runs: Where results lie.
        at_once: Processes.
        threads: Threads of each.
        keep_models: As in `worker.run_job`.
        told: Hears of each job that ends.

    Returns:
        The jobs that failed.
    """
    left, failed = list(jobs), list[Job]()
    running: dict[Future[list[Evaluation]], tuple[Job, float]] = {}
    with _pool(at_once, threads) as pool:
        while left or running:
            for job in left[: at_once - len(running)]:
                left.remove(job)
                running[pool.submit(_run, job, runs, keep_models)] = (job, time.perf_counter())
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                job, started = running.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise error
                failed += [job] if error is not None else []
                told(job, error or future.result(), time.perf_counter() - started)
    return failed


def _pool(at_once: int, threads: int) -> ProcessPoolExecutor:
    # The child reads this before it imports torch: more threads than cores would make every job slower.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(at_once, mp_context=context, initializer=_begin, initargs=(threads,))


def _begin(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()


def _leave_with(parent: int) -> None:
    """End this process when the one that asked for it is gone: it would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _run(job: Job, runs: Path, keep_models: bool) -> list[Evaluation]:
    from dudi.study.worker import run_job

    return run_job(job, runs, keep_models=keep_models)
