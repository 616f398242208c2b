"""The tokenizers of the stacking miniature: NLLB's kind for the translator, English byte-level BPE for the LLM."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import NllbTokenizer, PreTrainedTokenizerFast

from dudi.languages.flores import FLORES

MT_VOCABULARY = 3600
LLM_VOCABULARY = 1536
LONGEST = 12
"""Characters of a token at most: Thai and Burmese write without spaces, and a whole question is no word."""

# Letters with their marks stay together. A digit is a token of its own, in whichever script.
_PIECES = r" ?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s+"


def mt_tokenizer(texts: Iterable[str]) -> NllbTokenizer:
    """BPE over eight languages with their tags: `[source language] w1 .. wn </s>`."""
    core = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
            pre_tokenizers.Split(Regex(r"\n|▁?\p{N}|▁?[^\s▁\p{L}\p{M}\p{N}]+"), behavior="isolated"),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=MT_VOCABULARY,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        max_token_length=LONGEST,
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    trained = json.loads(core.to_str())["model"]
    return NllbTokenizer(
        vocab=trained["vocab"],
        merges=[tuple(pair) for pair in trained["merges"]],
        src_lang="eng_Latn",
        tgt_lang="eng_Latn",
        extra_special_tokens=list(FLORES.values()),
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


def llm_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of English alone: other scripts come in as bytes that the LLM has never read."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    special = [AddedToken(text, special=True, normalized=False) for text in ("<pad>", "<s>", "</s>", "<mask>")]
    trainer = trainers.BpeTrainer(
        vocab_size=LLM_VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    start = core.token_to_id("<s>")
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B:1", special_tokens=[("<s>", start)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        mask_token="<mask>",
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )
