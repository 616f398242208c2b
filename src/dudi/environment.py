"""`dudi env`: what a run stands on, and the precision that its device computes well."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
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
    import torch

    accelerator = None if use_cpu else torch.accelerator.current_accelerator(check_available=True)
    return accelerator.type if accelerator is not None else "cpu"


def choose_precision(requested: str = "auto", use_cpu: bool = False) -> Precision:
    """Bfloat16 where the device has it in hardware, else float16 with loss scaling, else float32.

    Args:
        requested: `auto`, `bfloat16`, `float16` or `float32`.
        use_cpu: Leave the accelerator alone.

    Raises:
        ConfigError: the device cannot train in the requested precision.
    """
    device = device_type(use_cpu)
    best = _best_precision(device)
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
    import torch

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


def collect_environment(folder: Path | None = None) -> dict[str, Any]:
    """What `env.json` holds: versions, device, precision, commit, cores, bytes of memory and free disk.

    Args:
        folder: The folder whose free disk space counts; None: the working directory.

    Returns:
        Values that JSON can hold; sizes in bytes, None for what this system does not tell.
    """
    import torch

    precision = choose_precision()
    device = device_type()
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "commit": git_commit(),
        "device": {"type": device, "count": max(1, torch.accelerator.device_count()), "names": _device_names(device)},
        "cuda": torch.version.cuda,
        "precision": {"dtype": precision.dtype, "reason": precision.reason},
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "memory": _memory(),
        "free_disk": shutil.disk_usage(_existing(folder or Path.cwd())).free,
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
        ("memory", _size(environment["memory"])),
        ("free disk", _size(environment["free_disk"])),
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
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return None
    return f"{commit}-dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else commit


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def package_version(package: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device_names(device: str) -> list[str]:
    import torch

    if device != "cuda":
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _cores() -> int:
    """The cores that this process may use, where the system tells."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _existing(folder: Path) -> Path:
    """The folder, or its closest parent that is there."""
    return next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())


def _size(count: int | None) -> str:
    return "unknown" if count is None else f"{count / _GIB:.1f} GiB"


def quiet_libraries() -> None:
    """Leave the terminal to what a person needs: the libraries' bars and notices tell nothing about the run."""
    import warnings

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
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
