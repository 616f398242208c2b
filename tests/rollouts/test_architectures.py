"""Every architecture of transformers that can be made tiny writes what it would draw, token for token, or is refused.

`python tests/rollouts/test_architectures.py` prints the table of docs/architectures.md.
"""

import contextlib
import functools
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from dudi.errors import ConfigError
from dudi.objective.forward import open_forward
from dudi.objective.heads import check_head
from dudi.rollouts import GumbelNoise, NoiseKey, Request, TransformersEngine

FAMILIES = (
    *("afmoe", "apertus", "arcee", "bart", "bert", "biogpt", "bitnet", "bloom", "cohere", "cohere2", "deepseek_v2"),
    *("deepseek_v3", "ernie4_5", "exaone4", "falcon", "falcon_mamba", "gemma", "gemma2", "gemma3_text", "glm", "glm4"),
    *("gpt2", "gpt_bigcode", "gpt_neox", "gpt_oss", "gptj", "granite", "granitemoe", "helium", "hunyuan_v1_dense"),
    *(
        "lfm2",
        "llama",
        "llama4_text",
        "mamba",
        "mbart",
        "minimax",
        "ministral",
        "mistral",
        "mixtral",
        "mpt",
        "nemotron",
        "olmo",
    ),
    *("olmo2", "olmo3", "olmoe", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_5_text"),
    *("qwen3_moe", "qwen3_next", "rwkv", "seed_oss", "smollm3", "stablelm", "starcoder2", "xglm"),
)
ATTENTION = ("sdpa", "eager")
REFUSED = {"bert": "looks ahead", "bart": "rollout_batch_size: 1", "mbart": "rollout_batch_size: 1"}
REFUSED |= {"rwkv": "rollout_batch_size: 1"}
VOCABULARY, TEMPERATURE, NEW = 96, 0.9, 8
SMALL = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "lru_width"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "moe_intermediate_size"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "attention_heads", "num_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("head_dim", "v_head_dim", "linear_key_head_dim", "linear_value_head_dim", "state_size"), 8),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "time_step_rank", "conv_kernel"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 256),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "sliding_window"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "rotary_dim"), 4),
    **dict.fromkeys(("n_group", "topk_group", "bos_token_id"), 1),
    **{"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 2, "num_experts_per_tok": 2},
    **{"decoder_attention_heads": 4, "shared_expert_intermediate_size": 24},
}


def tiny(family):
    """A random model of two layers; of a family that mixes kinds of layers, one of each kind."""
    known = AutoConfig.for_model(family).to_dict()
    values = {name: value for name, value in SMALL.items() if name in known}
    if "qk_rope_head_dim" in known:  # keys and values are made of one latent vector, for every head
        values |= {"head_dim": SMALL["qk_rope_head_dim"], "num_key_value_heads": 4}
    if isinstance(known.get("layer_types"), list):
        kinds = list(dict.fromkeys(known["layer_types"]))
        values["layer_types"] = (kinds * 2)[: max(2, len(kinds))]
        values["num_hidden_layers"] = len(values["layer_types"])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **values)).float().eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    open_forward(model)
    return model


@functools.cache
def requests():
    generator = torch.Generator().manual_seed(1)
    lengths = (3, 9, 6, 12, 5, 4, 7, 8, 11)  # nine rows: enough for ended ones to be dropped on the way
    prompts = [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
    return [Request(prompt, NoiseKey(0, f"r{i}", 0, "plain")) for i, prompt in enumerate(prompts)]


def write(model, batch_size):
    engine = TransformersEngine(
        lambda: contextlib.nullcontext(model),
        stop_ids=[2],
        pad_id=0,
        max_new_tokens=NEW,
        temperature=TEMPERATURE,
        vocabulary=VOCABULARY,
        batch_size=batch_size,
    )
    return engine.generate(requests())


@torch.no_grad()
def wrong_tokens(model, rollouts):
    """Tokens that are not what one pass over prompt and rollout, alone and without a cache, would have drawn."""
    wrong = 0
    for request, rollout in zip(requests(), rollouts, strict=True):
        ids = torch.tensor([[*request.prompt, *rollout.ids]])
        logits = model(input_ids=ids, use_cache=False).logits[0, len(request.prompt) - 1 :, :VOCABULARY].float()
        for position, token in enumerate(rollout.ids):
            noise = GumbelNoise([request.key], VOCABULARY, torch.device("cpu"))
            scores = noise.add_to(logits[position : position + 1] / TEMPERATURE, position)
            wrong += int(scores.argmax()) != token
    return wrong


def outcome(family, attention):
    """`exact`, `no NAME` where transformers has no such attention for it, or the refusal."""
    model = tiny(family)
    try:
        model.set_attn_implementation(attention)
    except ValueError:
        return f"no {attention}"
    try:
        check_head(model)
        rollouts = write(model, batch_size=16)
    except ConfigError as error:
        if "rollout_batch_size: 1" not in str(error):
            return str(error)
        assert wrong_tokens(model, write(model, batch_size=1)) == 0
        return str(error)
    wrong = wrong_tokens(model, rollouts)
    return "exact" if wrong == 0 else f"{wrong} tokens wrong"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rollout_is_the_students_own_draw(family):
    torch.set_num_threads(1)
    found = [outcome(family, attention) for attention in ATTENTION]
    if family in REFUSED:
        assert all(REFUSED[family] in one for one in found)
    else:
        assert "exact" in found and set(found) <= {"exact", *(f"no {one}" for one in ATTENTION)}


def test_the_prefill_makes_logits_of_the_last_position_alone():
    """`generate` reads in forward's signature whether it takes `logits_to_keep`: a table of all positions is large."""
    model, seen = tiny("gemma3_text"), []
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda module, given, out: seen.append(out.shape[1]))
    write(model, batch_size=16)
    shortest, tried = 3, 4
    assert set(seen) == {1, shortest + tried}  # the latter is the one look at whether it decodes as it reads


def table():
    lines = ["| family | " + " | ".join(ATTENTION) + " |", "|---|" + "---|" * len(ATTENTION)]
    for family in FAMILIES:
        cells = []
        for attention in ATTENTION:
            found = outcome(family, attention)
            cells.append(found if found.startswith(("exact", "no ")) else f"refused: {found.split(': ', 1)[0]}")
        lines.append(f"| `{family}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
