"""`llm_tokens`: the LLM reads the encoder's states, a boundary, and its own tokens; in every stage, and from disk."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from stack_helpers import (
    CHOICE,
    FOREIGN,
    TASK,
    TEXTS,
    choice_rows,
    english_rows,
    make_llm,
    make_llm_tokenizer,
    make_mt,
    make_nllb_tokenizer,
    make_stack_args,
    parallel_rows,
    same,
    weights,
)
from transformers import AutoModel

from dudi.errors import ConfigError
from dudi.stacking import (
    LoraSettings,
    Source,
    StackRow,
    align,
    build_stack,
    distill,
    evaluate,
    finetune,
    load_stack,
    read_own_tokens,
    stored,
    vectors,
    with_head,
)
from dudi.stacking.sequences import pack

LORA = LoraSettings(r=4)
BOTH = {"llm_tokens": True}
FAMILIES = ("llama", "qwen3", "gpt2")


@pytest.fixture
def source():
    return Source(make_nllb_tokenizer(), beside=Source(make_llm_tokenizer()))


def plain_source():
    return Source(make_nllb_tokenizer())


def both(kind="llama", attention="bidirectional"):
    model = build_stack(make_mt(), make_llm(kind), attention=attention)
    read_own_tokens(model, seed=1)
    return model


@torch.no_grad()
def read(model, batch):
    return model.eval()(**batch)


# ---- joining


def test_parts_are_packed_and_spread_again():
    parts = [
        torch.arange(1.0, 7).view(1, 3, 2).repeat(2, 1, 1),
        10 * torch.arange(1.0, 5).view(1, 2, 2).repeat(2, 1, 1),
    ]
    masks = [torch.tensor([[1, 1, 0], [0, 1, 1]]), torch.tensor([[0, 1], [1, 0]])]
    for left in (False, True):
        packed = pack(parts, masks, left=left)
        assert packed.mask.tolist() == [[1, 1, 1], [1, 1, 1]]
        assert packed.embeds[:, :, 0].tolist() == [[1, 3, 30], [3, 5, 10]]
        spread = packed.spread(packed.embeds, 5)
        assert spread[:, :, 0].tolist() == [[1, 3, 0, 0, 30], [0, 3, 5, 10, 0]]
    short = pack([parts[0]], [torch.tensor([[1, 0, 0], [1, 1, 0]])], left=True)
    assert short.mask.tolist() == [[0, 1], [1, 1]]
    assert short.embeds[0, 1, 0] == 1


# ---- what is read


def test_the_llm_reads_states_boundary_and_tokens_in_this_order(source):
    model = both()
    batch = source.batch(TEXTS[:1], ["eng_Latn"])
    seen = []
    model.llm.register_forward_pre_hook(lambda m, a, k: seen.append(k["inputs_embeds"]), with_kwargs=True)
    states = read(model, batch).last_hidden_state
    with torch.no_grad():
        connected = model.connector(model.encode(batch["input_ids"], batch["attention_mask"]))
        own = model.llm.get_input_embeddings()(batch["llm_input_ids"])
        expected = torch.cat([connected, model.boundary.weight[None], own], dim=1)
    torch.testing.assert_close(seen[0], expected)
    middle = connected.shape[1]
    kept = torch.cat([states[:, :middle], states[:, middle + 1 :]], dim=1)
    torch.testing.assert_close(read(model, batch).pooled, kept.mean(dim=1))


def test_a_choice_is_read_in_both_spellings(source):
    model = with_head(both(), CHOICE).eval()
    rows = choice_rows()[:1]
    batch = source.collate(source.encode_rows(rows))
    out = model.reader(**batch)
    begin = batch["input_ids"].shape[1] + 1
    for number in range(3):
        first, second = batch["choice_spans"][0, number], batch["llm_choice_spans"][0, number] + begin
        columns = [*range(*first.tolist()), *range(*second.tolist())]
        torch.testing.assert_close(out.choices[0, number], out.last_hidden_state[0, columns].mean(dim=0))


@pytest.mark.parametrize(("kind", "attention"), [(kind, "causal") for kind in FAMILIES] + [("llama", "bidirectional")])
def test_padding_of_either_part_changes_no_state(kind, attention, source):
    """The first text is the longer one for the LLM, the second for the encoder; each part is padded in one row."""
    model = both(kind, attention)
    texts = ["日本語日本語日本語日本語", TEXTS[1] + " " + TEXTS[4]]
    batch = source.batch(texts, ["eng_Latn"] * 2)
    padded = [(batch[f"{own}attention_mask"] == 0).any(dim=1).tolist() for own in ("", "llm_")]
    assert padded == [[True, False], [False, True]]
    together = read(model, batch)
    alone = [read(model, source.batch([text], ["eng_Latn"])) for text in texts]
    torch.testing.assert_close(together.pooled, torch.cat([one.pooled for one in alone]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", FAMILIES)
def test_tokens_of_the_llm_that_are_padded_on_the_left_read_the_same(kind, source):
    model = both(kind, "causal")
    batch = source.batch([TEXTS[0], TEXTS[1] + " " + TEXTS[4]], ["eng_Latn"] * 2)
    ids, mask = batch["llm_input_ids"], batch["llm_attention_mask"]
    assert int(mask[0].sum()) < mask.shape[1]
    turned = {"llm_input_ids": ids.clone(), "llm_attention_mask": mask.flip(1)}
    for place in range(2):
        turned["llm_input_ids"][place] = ids[place].roll(int((mask[place] == 0).sum()))
    torch.testing.assert_close(read(model, batch | turned).pooled, read(model, batch).pooled, rtol=1e-4, atol=1e-5)


def test_tokens_that_are_missing_or_not_asked_for_are_refused(source):
    batch = source.batch(TEXTS[:1], ["eng_Latn"])
    with pytest.raises(ValueError, match="reads no tokens of an LLM"):
        build_stack(make_mt(), make_llm())(**batch)
    with pytest.raises(ValueError, match="beside"):
        both()(**plain_source().batch(TEXTS[:1], ["eng_Latn"]))
    with pytest.raises(ConfigError, match="llm_tokens: needs an encoder and an LLM"):
        read_own_tokens(build_stack(make_mt(), None))


def test_a_length_for_which_the_llm_has_no_positions_is_refused(source):
    """256 positions: a text of 127 tokens twice and the boundary go in, one of 128 tokens does not."""
    model = with_head(both("gpt2", "causal"), TASK)
    assert len(evaluate(model, source, english_rows(), max_length=127).predictions) == 8
    with pytest.raises(ConfigError, match="256 positions, and max_length makes sequences of 257"):
        evaluate(model, source, english_rows(), max_length=128)


def test_a_row_that_either_tokenizer_cuts_is_shortened(source):
    long = StackRow(" ".join(["zzzz"] * 12), "eng_Latn")
    own = len(source.beside.encode([long.text], [""])[0]["input_ids"])
    below = len(plain_source().encode([long.text], ["eng_Latn"])[0]["input_ids"])
    assert own != below
    for most, cut in ((max(own, below), 0), (max(own, below) - 1, 1)):
        batch = source.collate(source.encode_rows([long], max_length=most))
        assert batch["shortened"].tolist() == [cut]
        assert "llm_shortened" not in batch


# ---- stages


def stage_1(folder, model=None, lora=LORA, **keys):
    model = build_stack(make_mt(), make_llm()) if model is None else model
    keys = {"max_steps": 6, "per_device_train_batch_size": 8, "learning_rate": 3e-3, "warmup_steps": 0} | BOTH | keys
    sources = plain_source(), Source(make_llm_tokenizer())
    resume = keys.pop("resume", None)
    align(model, *sources, english_rows(), make_stack_args(folder, **keys), lora, parallel_rows(), resume=resume)
    return model, sources[0]


def test_stage_1_trains_the_boundary_and_resumes_to_the_bit(tmp_path):
    keys = {"merge_lora": False, "save_strategy": "steps", "save_steps": 3}
    model, _ = stage_1(tmp_path / "run", **keys)
    assert model.config.llm_tokens
    fresh = both().boundary.weight
    assert not torch.equal(model.boundary.weight, fresh)
    step = tmp_path / "run" / "checkpoints" / "step-3"
    assert "boundary.weight" in load_file(step / "trained.safetensors")
    again, _ = stage_1(tmp_path / "run", resume=step, **keys)
    assert same(weights(again), weights(model))


def test_the_whole_llm_learns_its_embeddings_too_where_it_reads_them(tmp_path):
    model, _ = stage_1(tmp_path, lora=None)
    before = make_llm().model.embed_tokens.weight
    assert not torch.equal(model.llm.embed_tokens.weight, before)


def test_a_later_stage_adds_the_boundary_and_the_next_one_keeps_it(tmp_path):
    """Stage 1 without it, a task with it (MindMerger's order), and a second task on what came out."""
    model = build_stack(make_mt(), make_llm())
    sources = plain_source(), Source(make_llm_tokenizer())
    align(model, *sources, english_rows(), make_stack_args(tmp_path / "align"), LORA)
    assert model.boundary is None
    headed = with_head(model, TASK)
    args = make_stack_args(tmp_path / "task", max_steps=8, learning_rate=1e-2, warmup_steps=0, **BOTH)
    own = plain_source()
    finetune(headed, own, english_rows(), TASK, args, LORA, llm_tokenizer=make_llm_tokenizer())
    assert headed.config.llm_tokens
    assert headed.stack.config.llm_tokens
    before = headed.stack.boundary.weight.clone()
    args = make_stack_args(tmp_path / "again", learning_rate=1e-2)
    finetune(headed, own, english_rows(), TASK, args, LORA)
    assert not torch.equal(headed.stack.boundary.weight, before)
    with pytest.raises(ConfigError, match="the LLM's tokenizer is missing"):
        finetune(headed, plain_source(), english_rows(), TASK, args, LORA)


def test_stage_2_and_an_evaluation_read_both(tmp_path):
    rows = english_rows()
    llm_source = Source(make_llm_tokenizer())
    teacher = with_head(build_stack(None, make_llm()), TASK)
    args = make_stack_args(tmp_path / "teach", max_steps=8, learning_rate=1e-2, warmup_steps=0)
    for name, value in (("train_connector", False), ("llm_tokens", True)):
        setattr(args, name, value)
        with pytest.raises(ConfigError, match=f"^{name}: teach does not read it: it belongs to "):
            finetune(teacher, llm_source, rows, TASK, args, LORA)
        setattr(args, name, not value)
    args.stage, args.llm_tokens = "teach", True  # the key of a shared recipe is not the lone LLM's
    finetune(teacher, llm_source, rows, TASK, args, LORA)
    assert not teacher.config.llm_tokens
    found = vectors(teacher, llm_source, rows)
    stack, source = stage_1(tmp_path / "align")
    args = make_stack_args(tmp_path / "distill", max_steps=12, learning_rate=1e-2, warmup_steps=0)
    model = distill(stack, source, rows, TASK, found, teacher.score.weight.data, args, LORA)
    answers = evaluate(model, source, rows).predictions
    with torch.no_grad():
        alone = [int(model(**source.batch([text], ["eng_Latn"])).logits.argmax()) for text in TEXTS]
    assert answers == alone


@pytest.mark.parametrize("task", [TASK, CHOICE])
def test_pairs_and_choices_come_back_from_disk_to_the_bit(task, tmp_path):
    for name, parent in (("encoder", make_mt()), ("llm", make_llm("qwen3"))):
        parent.save_pretrained(tmp_path / name)
    rows = choice_rows()
    if task is TASK:
        rows = [StackRow(t, "eng_Latn", n % 3, pair=f) for n, (t, f) in enumerate(zip(TEXTS, FOREIGN, strict=True))]
    model = with_head(build_stack(str(tmp_path / "encoder"), str(tmp_path / "llm")), task)
    source = plain_source()
    args = make_stack_args(tmp_path / "run", learning_rate=1e-2, **BOTH)
    finetune(model, source, rows, task, args, LORA, llm_tokenizer=make_llm_tokenizer())
    for whole in (False, True):
        folder = tmp_path / f"model-{whole}"
        stored.save_model(folder, model, source.tokenizer, make_llm_tokenizer(), {}, whole=whole)
        loaded, again, _ = stored.open_model(str(folder))
        assert loaded.config.llm_tokens
        batch = again.collate(again.encode_rows(rows))
        assert torch.equal(read(loaded, batch).logits, read(model, batch).logits)
    names = set(load_file(tmp_path / "model-False" / "trained.safetensors"))
    assert {"boundary.weight", "connector.weight"} < names
    assert not any(name.startswith("encoder.") or "embed_tokens" in name for name in names)


def test_it_is_saved_by_save_pretrained_and_kept_in_fp32(source, tmp_path):
    model = build_stack(make_mt().bfloat16(), make_llm().bfloat16())
    read_own_tokens(model, seed=3)
    model.boundary.weight.data += 1e-4
    model.connector.float()
    model.save_pretrained(tmp_path)
    batch = source.batch(TEXTS[:3], ["eng_Latn"] * 3)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.boundary.weight.dtype == torch.float32
    assert torch.equal(read(loaded, batch).pooled, read(model, batch).pooled)
    assert torch.equal(load_stack(tmp_path).boundary.weight, model.boundary.weight)


def test_a_copy_is_a_model_of_its_own(source):
    model = both()
    batch = source.batch(TEXTS[:2], ["eng_Latn"] * 2)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.boundary.weight += 1
    assert not torch.equal(read(other, batch).pooled, read(model, batch).pooled)
