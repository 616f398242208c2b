"""What this machine can do at best, measured: matrix products and copies; and what it is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.sizes import Size

PACKAGES = ("dudi", "torch", "transformers", "trl", "accelerate", "datasets", "peft", "vllm")


def _best(work: Callable[[], object], seconds: float = 1.5) -> float:
    """The shortest of as many runs as fit into some seconds."""
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def matrix_rate(size: Size, precision: str) -> float:
    """FLOPs a second of the best of a few products."""
    dtype = getattr(torch, precision)
    width = 8192 if size.device == "cuda" else 1024
    rates = []
    for rows, inner, columns in ((width, width, width), (size.rows * size.new, size.student["hidden_size"], 4 * width)):
        a = torch.randn(rows, inner, dtype=dtype, device=size.device)
        b = torch.randn(columns, inner, dtype=dtype, device=size.device)
        rates.append(2 * rows * inner * columns / _best(lambda a=a, b=b: a @ b.T))  # type: ignore[misc]
    return max(rates)


def copy_rate(size: Size) -> float:
    """Bytes a second of a copy of 256 MiB (2 GiB on a GPU): what is read plus what is written."""
    source = torch.ones(2**29 if size.device == "cuda" else 2**26, device=size.device)
    target = torch.empty_like(source)
    return 2 * source.numel() * source.element_size() / _best(lambda: target.copy_(source))


def describe(size: Size) -> dict[str, Any]:
    """The machine and the versions; no name and no path of it."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    machine: dict[str, Any] = {"cpu": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    machine["load"] = round(os.getloadavg()[0], 1)
    if size.device == "cuda":
        machine["gpu"] = torch.cuda.get_device_name()
        machine["gpu_bytes"] = torch.cuda.get_device_properties(0).total_memory
    rate = matrix_rate(size, size.dtype)
    return {
        "machine": machine,
        "python": platform.python_version(),
        "versions": versions,
        "matrix_flops_per_second": rate,
        "teacher_flops_per_second": rate if size.judging == size.dtype else matrix_rate(size, size.judging),
        "copy_bytes_per_second": copy_rate(size),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
