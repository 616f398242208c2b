"""Whether everything runs on a device at all and says what fp64 says: what is asked before how fast it is."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.contestants import CONTESTANTS, make_parts
from benchmarks.parts import Found
from benchmarks.sizes import Size
from benchmarks.work import make_rows, make_tokenizer
from dudi.objective.heads import Distance, Head, weighted_divergence
from dudi.objective.losses import token_divergence
from dudi.objective.methods import METHODS

STEPS = 3
RANK = 8
OWN: dict[str, dict[str, Any]] = {
    "sft": {"max_new_tokens": None},
    "dft": {"max_new_tokens": None},
    "sdft": {"skip_completion_tokens": 0},
    "gated": {"teacher_weight": 0.5},
}
"""Keys that a method does not read, and that without which it would probe the teacher on held-out rows."""
KINDS = ("forward_kl", "reverse_kl", "jsd")
KERNELS = ("dense", "chunked", "fused")
ROWS, NARROW, WIDE, VOCABULARY = 192, 256, 384, 32_000


def methods(size: Size) -> Found:
    """A few steps of every method in every precision that the device trains in, LoRA and all weights."""
    precisions = ("bf16", "fp16") if size.device == "cuda" else ("fp32", "bf16")
    rows = [
        _steps(size, *case) for case in itertools.product(METHODS, precisions, (None, RANK))
    ]  # one after the other: a failure is a line
    lines = [
        f"### {STEPS} steps of every method",
        "",
        "| method | precision | trained | losses | s |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        said = row["failed"] or ", ".join(f"{loss:.3f}" for loss in row["losses"])
        lines.append(f"| {row['method']} | {row['precision']} | {row['trained']} | {said} | {row['seconds']:.1f} |")
    sound = sum(row["sound"] for row in rows)
    return {"rows": rows}, "\n".join([*lines, "", f"{sound} of {len(rows)} ended with finite losses and weights."])


def _steps(size: Size, method: str, precision: str, rank: int | None) -> dict[str, Any]:
    size = dataclasses.replace(
        size,
        steps=STEPS - 1,
        lora=rank,
        dtype="float32" if precision == "fp32" else "bfloat16",
        batch=2,
        accumulation=1,
    )
    found = {"method": method, "precision": precision, "trained": "LoRA" if rank else "all weights"}
    found |= {"losses": [], "failed": "", "sound": False}
    begun = time.monotonic()
    try:
        options = {"method": method, "bf16": precision == "bf16", "fp16": precision == "fp16", **OWN.get(method, {})}
        parts = make_parts("dudi", size, make_tokenizer(size), make_rows(size), options)
        trainer = CONTESTANTS["dudi"].build(parts)
        trainer.train()
        logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        weights = [p for p in trainer.model.parameters() if p.requires_grad]
        finite = all(map(math.isfinite, logged)) and all(bool(p.isfinite().all()) for p in weights)
        found |= {"losses": logged, "sound": len(logged) == STEPS and finite}
    except Exception as error:
        found["failed"] = f"{type(error).__name__}: {str(error)[:200]}".replace("\n", " ").replace("|", "/")
    return {**found, "seconds": time.monotonic() - begun}


def kernels(size: Size) -> Found:
    """Each kernel's value and gradients beside those of dense logits in fp64."""
    dtypes = (torch.float32, torch.bfloat16) if size.device == "cuda" else (torch.float32,)
    rows = [row for dtype in dtypes for row in _agreement(torch.device(size.device), dtype)]
    lines = [
        "### Kernels beside fp64",
        "",
        f"{ROWS} rows, {NARROW} and {WIDE} columns, vocabulary {VOCABULARY:,}. Largest difference of value and "
        "gradients, as a share of the largest of fp64's.",
        "",
        "| precision | divergence | kernel | value | hidden states | weights |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = " | ".join(f"{share:.1e}" for share in row["off"])
        lines.append(f"| {row['dtype']} | {row['kind']} | {row['kernel']} | {shares} |")
    return {"rows": rows}, "\n".join(lines)


def _agreement(device: torch.device, dtype: torch.dtype) -> Iterator[dict[str, Any]]:
    draw = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).to(device, dtype)

    student, teacher = (some(ROWS, NARROW), some(VOCABULARY, NARROW)), (some(ROWS, WIDE), some(VOCABULARY, WIDE))
    student = student[0], student[1] / NARROW**0.5
    teacher = teacher[0], teacher[1] / WIDE**0.5
    weights = torch.rand(ROWS, generator=draw).to(device)
    for kind in KINDS:
        exact = [side.double().requires_grad_() for side in student]
        logits = [hidden @ head.t() for hidden, head in (exact, [side.double() for side in teacher])]
        truth = (token_divergence(*logits, kind, 0.5, 1.0) * weights.double()).sum()
        wanted = [truth.detach(), *torch.autograd.grad(truth, exact)]
        for kernel in KERNELS:
            mine = [side.clone().requires_grad_() for side in student]
            value = weighted_divergence(
                Head(mine[1]), mine[0], Head(teacher[1]), teacher[0], weights, Distance(kind, 0.5, 1.0), kernel
            )
            found = [value.detach(), *torch.autograd.grad(value, mine)]
            off = [
                float((one.double() - other).abs().max() / other.abs().max())
                for one, other in zip(found, wanted, strict=True)
            ]
            yield {"dtype": str(dtype).removeprefix("torch."), "kind": kind, "kernel": kernel, "off": off}
