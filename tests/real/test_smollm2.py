"""SmolLM2-135M out of a GGUF file: two steps of DuDi under LoRA, and what is left of them."""

import math

import pytest
import torch
from lane import EN, answer, encoded, logits, make_trainer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from dudi.data.chat import chat_format
from dudi.training.runlog import read_jsonl

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def run(smollm2, tmp_path_factory):
    """A trainer after its two steps, a checkpoint after each, its final model saved."""
    folder = tmp_path_factory.mktemp("smollm2")
    trainer = make_trainer(folder, smollm2, save_strategy="steps", save_steps=1)
    trainer.train()
    trainer.save_final(folder / "model", {})
    return trainer


def test_the_gguf_file_is_a_plain_model_with_its_own_turns(smollm2):
    assert smollm2.model.dtype == torch.float32
    assert "quantization_config" not in smollm2.model.config.to_dict()
    chat = chat_format(smollm2.tokenizer, {}, "SmolLM2")
    assert smollm2.tokenizer.convert_ids_to_tokens(chat.end_of_turn) == "<|im_end|>"
    assert "You are a helpful AI assistant named SmolLM" in chat.render([{"role": "user", "content": "?"}])


def test_it_answers_as_the_real_one_does(smollm2):
    ids = answer(smollm2.model, smollm2.tokenizer, QUESTION, 12)
    assert smollm2.tokenizer.decode(ids) == "The capital of France is Paris.<|im_end|>"


def test_the_signals_of_the_first_step_are_what_theory_says(run):
    first, second = read_jsonl(run.args.folder / "metrics.jsonl")
    assert first["loss/sequence"] == pytest.approx(math.log(2), abs=1e-5)  # the policy is its reference
    assert first["loss/off_policy"] < 1e-5  # the teacher is the student ...
    assert first["loss/on_policy"] > 1e-3  # ... but reads the answer before it judges
    assert abs(second["loss/sequence"] - math.log(2)) > 1e-5


def test_what_was_saved_is_what_was_trained(run):
    folder = run.args.folder / "model"
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(
        logits(loaded, AutoTokenizer.from_pretrained(folder)),
        logits(run.model, run.processing_class),
        atol=2e-3,
        rtol=1e-3,
    )


def test_the_saved_model_stops_where_it_ends_its_turn(run):
    """Two steps at a test's learning rate leave no sentence; what tells `generate` to stop is in the folder."""
    folder = run.args.folder / "model"
    stops = GenerationConfig.from_pretrained(folder).eos_token_id
    end = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|im_end|>")
    assert end in (stops if isinstance(stops, list) else [stops])


def test_evaluation_is_the_cross_entropy_in_bits_per_byte(run):
    tokenizer = run.processing_class
    ids = encoded(tokenizer)
    trained = len(chat_format(tokenizer, {}, "SmolLM2").answer_ids(EN[0]["completion"]))
    nats = torch.nn.functional.cross_entropy(
        logits(run.model, tokenizer)[-1 - trained : -1], torch.tensor(ids[-trained:]), reduction="sum"
    )
    expected = float(nats) / math.log(2) / len(EN[0]["completion"].encode())
    assert run.evaluate()["eval_bits_per_byte"] == pytest.approx(expected, rel=1e-4)


def test_a_resumed_run_ends_with_the_same_bits(run, smollm2, tmp_path_factory):
    folder = run.args.folder
    ended = {name: value.clone() for name, value in run.model.state_dict().items() if "lora_" in name}
    again = make_trainer(folder, smollm2, save_strategy="no")
    again.train(resume_from_checkpoint=str(folder / "checkpoints" / "step-1"))
    state = again.model.state_dict()
    assert ended and all(torch.equal(value, state[name]) for name, value in ended.items())
