"""Real checkpoints as GGUF files: llama.cpp reads all eight languages' texts and answers as the folder does."""

import pytest
import torch
from lane import NAMES, folder_of

from dudi.data.chat import chat_format
from dudi.models.load import load_model, load_tokenizer
from dudi.program.cli import main
from helpers import TEXT
from llama_cpp import LlamaCpp

ODD = ["3.14 km² in 2024,  two  spaces", "a\n\n b\tc", "it's “quoted” (1,234)", "👩🏽‍🚀 naïve Å", "x" * 50]


@pytest.mark.parametrize("name", NAMES)
def test_llama_cpp_answers_as_the_folder_does(name, tmp_path):
    folder = str(folder_of(name))
    file = tmp_path / "model.gguf"
    assert main(["export", folder, "--gguf", "F32", "--output", str(file)]) == 0
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    there = LlamaCpp(file)
    for text in [part for row in TEXT.values() for part in row] + ODD:
        assert there.tokenize(text) == tokenizer(text, add_special_tokens=False)["input_ids"], text
    chat = chat_format(tokenizer, {}, name) if tokenizer.chat_template else None
    for code in ("id", "th", "ta", "my", "en"):
        text = chat.render([{"role": "user", "content": TEXT[code][0]}]) if chat else TEXT[code][1]
        ids = tokenizer(text, add_special_tokens=chat is None)["input_ids"]
        full = model.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)[0, len(ids) :].tolist()
        given = there.answer(ids, 16)
        assert given == full[: len(given)] and len(full) - len(given) < 4
