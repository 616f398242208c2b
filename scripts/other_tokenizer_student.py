"""A student of `dudi-mini-base`'s shape and reading whose tokenizer is of another kind: SentencePiece's, as Gemma's.

    python scripts/other_tokenizer_student.py --output runs/other-tokenizer

It is what `scripts/build_mini.py` makes of `base`, from the same seed: as many weights, the same conversations in as
many steps. Only its tokens are others. The package's tokenizer is BPE over bytes that keeps words and punctuation
apart; this one is BPE over characters, with a token for each lone byte, that splits at spaces alone, made from another
sample of the same texts. The package's `base` is its control: the student that has its teacher's tokenizer. It is not
shipped; the recipes of `recipes/study/tokenizers/` name the folder above.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from build_mini import TEXTS, build  # first: it sets the threads before torch is there
from mini.corpus import texts
from mini.tokenizer import ASSISTANT, END, PAD, SYSTEM, TEMPLATE, USER, VOCABULARY
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

UNKNOWN = "<unk>"
SPECIALS = [PAD, END, SYSTEM, USER, ASSISTANT]
LONE_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LONGEST = 16
"""Characters of a token, as in SentencePiece: Thai and Burmese put few spaces between words."""


def make_sentence_piece(sample: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a BPE over characters as large as the package's over bytes, with that one's chat template and roles."""
    core = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token=UNKNOWN))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("▁", behavior="merged_with_next"),
            pre_tokenizers.Split(Regex(r"\p{N}|\n"), behavior="isolated"),
        ]
    )
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[*SPECIALS, UNKNOWN, *LONE_BYTES],
        max_token_length=LONGEST,
        show_progress=False,
    )
    core.train_from_iterator(sample, trainer)
    described = json.loads(core.to_str())  # lone bytes are ordinary tokens: a text that spells one out means itself
    described["added_tokens"] = [token for token in described["added_tokens"] if token["content"] in SPECIALS]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)),
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def main() -> None:
    """Make the tokenizer, then the student."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=None, help="fewer steps, for a trial")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order: the package's `base` has 0")
    asked = parser.parse_args()
    make_sentence_piece(texts(asked.seed + 1, TEXTS)).save_pretrained(asked.output)
    build("base", asked.output, asked.seed, asked.steps)


if __name__ == "__main__":
    main()
