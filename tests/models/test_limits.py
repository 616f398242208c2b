"""Ids and lengths are held against the model before anything is trained or asked."""

import contextlib
import copy

import pytest
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    OPTConfig,
    OPTForCausalLM,
    XLMRobertaConfig,
    XLMRobertaModel,
    set_seed,
)

from dudi import DudiTrainer
from dudi.errors import ConfigError
from dudi.models.limits import learned_positions
from dudi.program.cli import main
from dudi.rollouts.engine import NoiseKey, Request
from dudi.rollouts.transformers_engine import TransformersEngine
from helpers import ROWS, make_args, make_model


def gpt2(positions):
    set_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=448, n_positions=positions, n_embd=16, n_layer=1, n_head=2))


def trainer(folder, student, tokenizer, teacher=None, method="sft", **keys):
    return DudiTrainer(student, teacher, make_args(folder, method, **keys), ROWS, processing_class=tokenizer)


def test_positions_are_counted_where_they_are_learned():
    assert learned_positions(gpt2(64)) == 64
    opt = OPTConfig(vocab_size=448, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2)
    opt.max_position_embeddings, opt.word_embed_proj_dim = 32, 16
    assert learned_positions(OPTForCausalLM(opt)) == 32
    assert learned_positions(make_model("llama")) is None
    reader = XLMRobertaConfig(vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1)
    reader.num_attention_heads, reader.max_position_embeddings, reader.pad_token_id = 2, 34, 1
    assert learned_positions(XLMRobertaModel(reader)) == 32  # as 512 of 514


def test_a_model_without_embeddings_for_its_tokens_is_refused_before_it_is_asked(tmp_path, tokenizer, student, capsys):
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens([f"word{n}" for n in range(60)])
    student.save_pretrained(tmp_path / "model")
    larger.save_pretrained(tmp_path / "model")
    (tmp_path / "q.jsonl").write_text('{"id": "a", "language": "id", "question": "word59 apa?", "answer": "Ya"}\n')
    words = ["eval", str(tmp_path / "model"), "--benchmark", str(tmp_path / "q.jsonl"), "--output", str(tmp_path / "e")]
    assert main(words) == 2
    assert "tokens beyond the 448 rows" in capsys.readouterr().err


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_tokens_that_the_embeddings_lack_are_refused_at_the_start(tmp_path, tokenizer, student, role):
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens([f"word{n}" for n in range(60)])
    student_tokens, teacher_tokens = (larger, tokenizer) if role == "student" else (tokenizer, larger)
    with pytest.raises(ConfigError, match=rf"{role}: its tokenizer has \d+ tokens beyond the 448 rows .*'word\d+'"):
        DudiTrainer(
            student,
            make_model(seed=2),
            make_args(tmp_path, "gkd"),
            ROWS,
            processing_class=student_tokens,
            teacher_processing_class=teacher_tokens,
        )


def test_a_special_token_beyond_them_is_let_pass(tmp_path, tokenizer, student):
    larger = copy.deepcopy(tokenizer)
    larger.add_special_tokens({"additional_special_tokens": [f"<|image{n}|>" for n in range(60)]})
    assert max(larger.get_vocab().values()) >= 448
    made = trainer(tmp_path, student, larger)
    assert len(made.setup.train.examples) == len(ROWS)


@pytest.mark.parametrize(
    ("method", "keys", "words"),
    [
        ("sft", {"max_length": 256}, "the student has 128 positions, and max_length makes sequences of 256 tokens"),
        ("spin", {"max_length": 128, "max_new_tokens": 120}, "the student has 128 positions, and max_new_tokens after"),
    ],
)
def test_lengths_without_positions_are_refused_at_the_start(tmp_path, tokenizer, method, keys, words):
    with pytest.raises(ConfigError, match=words):
        trainer(tmp_path, gpt2(128), tokenizer, method=method, **keys)


def test_a_teacher_without_positions_for_its_prompt_is_refused_at_the_start(tmp_path, tokenizer):
    with pytest.raises(ConfigError, match=r"the teacher has 512 positions, and max_new_tokens .* teacher_max_length"):
        trainer(tmp_path, make_model(), tokenizer, gpt2(512), "dudi", max_length=256, teacher_max_length=512)
    trainer(tmp_path, make_model(), tokenizer, gpt2(512), "dudi", max_length=256, teacher_max_length=500)


def test_a_question_without_positions_for_its_answer_is_refused(tokenizer):
    engine = TransformersEngine(
        lambda: contextlib.nullcontext(gpt2(64)),
        stop_ids=[0],
        pad_id=0,
        max_new_tokens=16,
        temperature=0.0,
        vocabulary=448,
        batch_size=2,
    )
    requests = [Request([1] * length, NoiseKey(0, str(length), 0, "eval")) for length in (3, 49)]
    with pytest.raises(ConfigError, match=r"the model has 64 positions, .* sequences of 65 tokens"):
        engine.generate(requests)
