"""What a teacher's likeliest tokens and their tail leave of a divergence and its gradient, as Markdown.

    python scripts/served_error.py mini/dudi --steps 40
    python scripts/served_error.py smollm2 student.keep_layers=24 --steps 12

The recipe's student is trained on its rows with SFT for so many steps, so that it is what it is when distillation
begins. On rows that it did not see both models then read each target, and the teacher's distribution is looked at
whole, and through its k likeliest tokens, the label and the tail, as a served teacher is (docs/served-teacher.md). The
gradient is that of the summed divergence with respect to the student's last hidden states.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from torch import Tensor

from dudi.data.examples import Example
from dudi.distill.loading import Loaded
from dudi.distill.recipe import load_run_config
from dudi.distill.run import make_trainer, read_rows
from dudi.objective.forward import completion_states
from dudi.objective.heads import Head, head_of
from dudi.objective.losses import token_divergence
from dudi.objective.methods import Divergence
from dudi.objective.top_tokens import TopTokens, top_divergence

SIZES = (8, 16, 64, 256)
KINDS: tuple[Divergence, ...] = ("forward_kl", "reverse_kl", "jsd")
AT_ONCE = 64
"""Positions whose logits are held at a time."""
Sums = dict[tuple[str, int, Divergence], Tensor]
"""By language, k and divergence: both divergences, the gradients' products (whole x top, whole^2, top^2, of the
difference), the tail, positions."""


def main(words: Sequence[str]) -> None:
    """Print the tables of a recipe's student and teacher."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--steps", type=int, default=40, help="of SFT before anything is measured")
    parser.add_argument("--rows", type=int, default=12, help="of each language that are measured")
    given = parser.parse_args(words)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        found, about = measured(given.recipe, given.overrides, given.steps, given.rows, Path(folder))
    print(f"{about}\n\n{overall(found)}\n\n{by_language(found)}")  # noqa: T201


def measured(recipe: str, overrides: list[str], steps: int, per_language: int, folder: Path) -> tuple[Sums, str]:
    """Train the student for a few steps, and measure on rows that were left out."""
    words = ["method=sft", "cold_start=none", "benchmark=null", f"max_steps={steps}", "save_strategy=no"]
    config = load_run_config(recipe, [*overrides, *words])
    args = config.dudi_config(folder, disable_tqdm=True)
    loaded = Loaded(config, args)
    rows, _ = read_rows(config, args)
    held = {language: [row for row in rows.rows if row.language == language] for language in args.languages}
    apart = {row.id for own in held.values() for row in own[-per_language:]}
    asked = [row for row in rows.rows if row.id in apart]
    rows.rows[:] = [row for row in rows.rows if row.id not in apart]
    trainer = make_trainer(loaded, rows, None)
    trainer.train()
    examples, _ = trainer.setup.reader.read(asked, "held out", rows.rejections)
    student, teacher = trainer.inner_model().eval(), loaded.teacher
    if not isinstance(teacher, torch.nn.Module):
        raise SystemExit("a teacher that can be loaded here is needed")
    found: Sums = {}
    for example in examples.examples:
        for hidden, theirs, labels in positions(student, teacher.eval(), example):
            add(found, example.row.language, hidden, head_of(student), theirs, labels)
    parameters = " / ".join(f"{sum(p.numel() for p in one.parameters()) / 1e6:.0f}M" for one in (student, teacher))
    tokens = sum(len(example.completion) for example in examples.examples)
    return found, (
        f"`{recipe}`: student / teacher {parameters} parameters, {theirs.shape[1]:,} ids; {steps} steps of SFT; "
        f"{len(examples.examples)} rows, {tokens:,} positions."
    )


@torch.no_grad()
def positions(student: torch.nn.Module, teacher: torch.nn.Module, example: Example) -> Iterator[tuple[Tensor, ...]]:
    """Some positions of a target at a time: the student's states (n, H), the teacher's logits (n, V), the labels."""
    pair = [(example.prompt, example.completion)]
    labels = torch.as_tensor(example.completion, dtype=torch.int64)
    states, theirs = completion_states(student, pair), completion_states(teacher, pair)
    for at in torch.arange(len(labels)).split(AT_ONCE):
        yield states[at], head_of(teacher).logits(theirs[at]), labels[at]


def add(found: Sums, language: str, hidden: Tensor, head: Head, teacher: Tensor, labels: Tensor) -> None:
    """Compare at some positions, for every k and divergence."""
    hidden = hidden.detach().requires_grad_()
    for kind in KINDS:
        whole, exact = value_and_gradient(hidden, token_divergence(head.logits(hidden), teacher, kind))
        for k in SIZES:
            top = seen(teacher, labels, k)
            value, ours = value_and_gradient(hidden, top_divergence(head.logits(hidden), top, kind))
            gap = exact - ours
            products = [(one * other).sum() for one, other in ((exact, ours), (exact, exact), (ours, ours), (gap, gap))]
            tail, count = top.log_probs[:, -1].exp().sum(), whole.new_tensor(len(labels))
            sums = torch.stack([whole, value, *products, tail, count])
            for name in (language, "all"):
                found[name, k, kind] = found.get((name, k, kind), torch.zeros(8, dtype=torch.float64)) + sums.double()


def value_and_gradient(hidden: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over positions, and its gradient with respect to the states."""
    total = values.sum()
    return total.detach(), torch.autograd.grad(total, hidden)[0]


def seen(logits: Tensor, labels: Tensor, k: int) -> TopTokens:
    """(n, V) logits of the teacher as its server would tell of them."""
    log_probs = logits.log_softmax(-1)
    likeliest = log_probs.topk(k).indices
    void = likeliest == labels.unsqueeze(1)
    ids = torch.cat([labels.unsqueeze(1), likeliest], dim=1)
    named = log_probs.gather(1, ids)
    named[:, 1:][void] = -torch.inf
    tail = log_probs.scatter(1, ids, -torch.inf).logsumexp(1, keepdim=True)
    return TopTokens(ids, torch.cat([named, tail], dim=1))


def read(sums: Tensor) -> tuple[float, float, float, float, float]:
    """Mean divergence, the share of it that is seen, the gradient's cosine and relative error, the mean tail."""
    whole, value, both, exact, ours, gap, tail, count = sums.tolist()
    return whole / count, value / whole, both / (exact * ours) ** 0.5, (gap / exact) ** 0.5, tail / count


def overall(found: Sums) -> str:
    """All languages together."""
    lines = ["| divergence | k | whole, nats | seen | gradient: cosine | relative error | tail |", "|---" * 7 + "|"]
    for kind in KINDS:
        for k in SIZES:
            whole, share, cosine, error, tail = read(found["all", k, kind])
            lines.append(f"| {kind} | {k} | {whole:.3f} | {share:.1%} | {cosine:.4f} | {error:.3f} | {tail:.2%} |")
    return "\n".join(lines)


def by_language(found: Sums) -> str:
    """The share that is seen and the gradient's cosine in each language, under the paper's reverse KL."""
    lines = ["| reverse_kl: seen, cosine | " + " | ".join(f"k = {k}" for k in SIZES) + " | tail at 64 |"]
    lines.append("|---" * (len(SIZES) + 2) + "|")
    for language in dict.fromkeys(name for name, _, _ in found if name != "all"):
        each = [read(found[language, k, "reverse_kl"]) for k in SIZES]
        tail = read(found[language, 64, "reverse_kl"])[-1]
        cells = [f"{share:.1%}, {cosine:.3f}" for _, share, cosine, _, _ in each]
        lines.append(f"| {language} | {' | '.join(cells)} | {tail:.2%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
