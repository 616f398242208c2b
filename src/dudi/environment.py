"""`dudi env`: what a run stands on, and the precision that its device computes well."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from dudi.errors import ConfigError

PACKAGES: tuple[str, ...] = (
    "dudi",
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "safetensors",
    "numpy",
    "trl",
    "babel",
    "py3langid",
    "pydantic",
    "peft",
    "gguf",
    "vllm",
    "deepspeed",
    "bitsandbytes",
    "tensorboard",
    "trackio",
)
_GIB = 2**30

PrecisionName = Literal["float32", "bfloat16", "float16"]


@dataclasses.dataclass(frozen=True, slots=True)
class Precision:
    """The precision of training, and why it is this one."""

    dtype: PrecisionName
    reason: str


def device_type(use_cpu: bool = False) -> str:
    """`cuda`, `mps`, `xpu` ... of the accelerator that torch sees, or `cpu`."""
    accelerator = None if use_cpu else torch.accelerator.current_accelerator(check_available=True)
    return accelerator.type if accelerator is not None else "cpu"


def multiplies_bfloat16() -> bool:
    """Whether this processor has products of bfloat16 numbers; torch makes them one at a time where it has not."""
    tell = vars(torch.cpu).get("get_capabilities")  # not in every version of torch that we take
    found = {} if tell is None else tell()
    return any(found.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16"))


def choose_precision(requested: str = "auto", use_cpu: bool = False) -> Precision:
    """The precision that is asked for; `auto`: bfloat16 where the device has it in hardware, else float16, or float32.

    Raises:
        ConfigError: the device cannot train in the requested precision.
    """
    device = device_type(use_cpu)
    best = _best_precision(device)
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched != "no" and requested in ("auto", "float32"):  # accelerate obeys its launcher where nobody else speaks
        names: dict[str, PrecisionName] = {"bf16": "bfloat16", "fp16": "float16"}
        if launched not in names:
            raise ConfigError(f"ACCELERATE_MIXED_PRECISION: {launched} is not one of no, bf16, fp16; unset it")
        chosen = choose_precision(names[launched], use_cpu)
        return Precision(chosen.dtype, f"ACCELERATE_MIXED_PRECISION={launched} wins over dtype: {requested}")
    if requested == "auto":
        return best
    if requested == "float32":
        return Precision("float32", "asked for")
    if requested == "float16" and device == "cpu":
        raise ConfigError("dtype: float16 needs a GPU for its loss scaling; use dtype: auto")
    if requested == "bfloat16":
        if device == "cuda" and best.dtype != "bfloat16":
            raise ConfigError(f"dtype: bfloat16 is not available ({best.reason}); use dtype: auto")
        return Precision("bfloat16", "asked for")
    return Precision("float16", "asked for; the loss is scaled")


def _best_precision(device: str) -> Precision:
    if device == "cpu":
        return Precision("float32", "no accelerator; a CPU gains little from 16 bits")
    if device == "mps":
        return Precision("float32", "MPS has no loss scaling, and bfloat16 only on some systems")
    if device == "cuda":
        name = torch.cuda.get_device_name()
        # The default counts emulation, which is slower than float16 (T4, V100).
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bfloat16", f"{name} has bfloat16")
        return Precision("float16", f"{name} has no bfloat16; float16 with loss scaling")
    return Precision("bfloat16", f"the default for {device}")


def product_rate(dtype: PrecisionName, device: str) -> float:
    """FLOPs a second of a matrix product that the device does well: the best of a few, in a moment."""
    width = 768 if device == "cpu" else 8192
    one, other = (torch.ones(width, width, dtype=getattr(torch, dtype), device=device) for _ in range(2))
    settle = torch.accelerator.synchronize if device != "cpu" else lambda: None
    seconds = []
    for _ in range(5):
        settle()
        begin = time.perf_counter()
        one @ other
        settle()
        seconds.append(time.perf_counter() - begin)
    return 2.0 * width**3 / min(seconds)


def collect_environment(
    folder: Path | None = None, *, requested: str = "auto", use_cpu: bool = False
) -> dict[str, Any]:
    """What `env.json` holds: versions, device, commit, cores, memory and free disk in bytes, all as JSON has them.

    The free disk is that of the folder, or of the working directory; FLOPs a second are those that a matrix product
    reaches in the precision that is asked for.
    """
    precision, device = choose_precision(requested, use_cpu), device_type(use_cpu)
    place = (folder or Path.cwd()).resolve()
    there = next(path for path in (place, *place.parents) if path.exists())
    count = torch.cuda.device_count() if device == "cuda" else 0
    names = [torch.cuda.get_device_name(index) for index in range(count)]
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "commit": git_commit(),
        "device": {"type": device, "count": max(1, torch.accelerator.device_count()), "names": names},
        "cuda": torch.version.cuda,
        "precision": dataclasses.asdict(precision),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "product_flops": product_rate(precision.dtype, device),
        "memory": psutil.virtual_memory().total,
        "free_disk": psutil.disk_usage(str(there)).free,
    }


def describe_environment(environment: Mapping[str, Any]) -> str:
    """The same for people: aligned lines, missing optional packages in one line at the end."""
    packages: Mapping[str, str | None] = environment["packages"]
    device, precision = environment["device"], environment["precision"]
    names = ", ".join(device["names"]) or "no accelerator"
    missing = [name for name, version in packages.items() if not version and name != "dudi"]
    rows = [("python", f"{environment['python']} ({environment['executable']})"), ("platform", environment["platform"])]
    rows.append(("dudi", packages["dudi"] or "not installed, running from a checkout"))
    rows += [(name, version) for name, version in packages.items() if version and name != "dudi"]
    rows += [
        ("commit", environment["commit"] or "not a git checkout"),
        ("device", f"{device['count']} x {device['type']} ({names})"),
        ("cuda", environment["cuda"] or "not in this build of torch"),
        ("precision", f"{precision['dtype']}: {precision['reason']}"),
        ("cores", f"{environment['cores']} ({environment['threads']} threads in torch)"),
        ("products", f"{environment['product_flops'] / 1e9:,.0f} GFLOP/s in {precision['dtype']}, measured now"),
        ("memory", f"{environment['memory'] / _GIB:.1f} GiB"),
        ("free disk", f"{environment['free_disk'] / _GIB:.1f} GiB"),
        ("not installed", ", ".join(missing) or "nothing"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def git_commit() -> str | None:
    """The commit of the checkout that this package runs from, `-dirty` when files differ; None outside one."""
    root = Path(__file__).resolve().parents[2]
    # Without this an installed dudi would report the repository that its virtual environment lies in.
    if not (root / ".git").exists() or not (root / "src" / "dudi").is_dir():
        return None
    words = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def package_version(package: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def quiet_libraries() -> None:
    """Leave the terminal to what a person needs: the libraries' bars and notices tell nothing about the run."""
    import datasets
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning)


def peak_memory() -> int:
    """Peak bytes: of the device where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
