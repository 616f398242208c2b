"""Real parents: multilingual-e5-small under each real LLM, a step of Stage 1, saved and put together again."""

import pytest
import torch
from lane import NAMES, folder_of
from stack_helpers import make_stack_args

from dudi.models.load import load_tokenizer
from dudi.stacking import Source, StackRow, align, build_stack, load_stack

TEXTS = ["The cat sleeps in the sun.", "Two and two are four.", "She sells rice at the market.", "It rained all night."]
ASKED = (["Kucing itu tidur di bawah matahari.", "แมวนอน", "ကြောင်"], ["id", "th", "my"])


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_stage_1_between_real_parents(name, tmp_path):
    encoder, llm = str(folder_of("e5-small")), str(folder_of(name))
    source, reader = Source(load_tokenizer(encoder)), Source(load_tokenizer(llm))
    stack = build_stack(encoder, llm)
    rows = [StackRow(text, "en") for text in TEXTS]
    args = make_stack_args(tmp_path, max_steps=2, per_device_train_batch_size=2, connector_start="least_squares")
    trained = align(stack, source, reader, rows, args)
    with torch.no_grad():
        vectors = trained.eval()(**source.batch(*ASKED)).pooled
        assert vectors.shape == (3, stack.config.hidden_size) and torch.isfinite(vectors).all()
        alone = [trained(**source.batch([text], [code])).pooled for text, code in zip(*ASKED, strict=True)]
        torch.testing.assert_close(torch.cat(alone), vectors, atol=1e-3, rtol=1e-3)  # padding changes nothing
        trained.save_pretrained(tmp_path / "model")
        again = load_stack(tmp_path / "model", dtype="float32").eval()(**source.batch(*ASKED)).pooled
    torch.testing.assert_close(again, vectors, atol=1e-4, rtol=1e-4)
