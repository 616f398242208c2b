"""Run jobs in several processes, each after what it needs."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from dudi.study.jobs import RESULT, Job

Told = Callable[[Job, dict[str, Any] | BaseException, float], None]
"""Called after each job with its result, or what went wrong, and the seconds it took."""


def run_jobs(
    jobs: Sequence[Job], runs: Path, *, at_once: int, threads: int, keep_models: bool, told: Told
) -> list[Job]:
    """Do jobs, in order, as far as what each needs is there.

    Args:
        jobs: Those that are not done yet; each stands behind what it needs.
        runs: Where results lie.
        at_once: Processes.
        threads: Threads of each.
        keep_models: As in `worker.run_job`.
        told: Hears of each job that ends.

    Returns:
        The jobs that failed, and those that could not run because of them.
    """
    left = list(jobs)
    failed: list[Job] = []
    running: dict[Future[Any], tuple[Job, float]] = {}
    with _pool(at_once, threads) as pool:
        while left or running:
            for job in _ready(left, runs)[: at_once - len(running)]:
                left.remove(job)
                running[pool.submit(_run, job, runs, keep_models)] = (job, time.perf_counter())
            if not running:
                return failed + left
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                job, started = running.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise error
                if error is not None:
                    failed.append(job)
                told(job, error or future.result(), time.perf_counter() - started)
    return failed


def _ready(jobs: Sequence[Job], runs: Path) -> list[Job]:
    """Those that wait for nothing, in order."""
    return [job for job in jobs if all((runs / need / RESULT).is_file() for need in job.needs)]


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


def _run(job: Job, runs: Path, keep_models: bool) -> dict[str, Any]:
    from dudi.study.worker import run_job

    return run_job(job, runs, keep_models=keep_models)
