"""`data.bitext`: Stage 1 learns from bitext first, in an order that hangs on the seed alone, then from the texts."""

import json
import shutil

import pytest
import torch
from stack_helpers import (
    FOREIGN,
    TEXTS,
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

from dudi.errors import ConfigError, DataError
from dudi.stacking import LoraSettings, Source, StackRow, align, build_stack
from dudi.stacking.alignment import AlignmentLoss
from dudi.stacking.curriculum import Curriculum
from dudi.stacking.store import TextRows, write_texts

LORA = LoraSettings(r=4)


def sources():
    return Source(make_nllb_tokenizer()), Source(make_llm_tokenizer())


def places(folder, share=0.5, strategy="random", texts=None, **keys):
    keys = {"max_steps": 6, "bitext_share": share, "train_sampling_strategy": strategy} | keys
    rows = Curriculum(parallel_rows(), texts or english_rows(), make_stack_args(folder, **keys))
    return list(rows.order(4, seed=3)), rows


# ---- the loss


def test_the_encoder_reads_the_text_and_the_llm_its_english(tmp_path):
    source, llm_source = sources()
    objective = AlignmentLoss(source, llm_source, make_stack_args(tmp_path))
    rows = [parallel_rows()[0], english_rows()[1]]
    batch = objective.collate(rows, [0, 1])
    read = source.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    taught = llm_source.tokenizer.batch_decode(batch["taught_input_ids"], skip_special_tokens=True)
    assert [text.strip() for text in read] == [FOREIGN[0], TEXTS[1]]
    assert taught == [TEXTS[0], TEXTS[1]]
    model = build_stack(make_mt(), make_llm()).eval()
    total, _ = objective.loss(model, model, batch)
    with torch.no_grad():
        expected = 0.0
        for row, english in zip(rows, TEXTS, strict=False):
            mine = model(**source.batch([row.text], [row.language])).pooled
            expected += float((mine - model.read_tokens(**llm_source.batch([english], [""])).pooled).square().mean())
    assert total.item() == pytest.approx(expected, rel=1e-4)


# ---- the order


@pytest.mark.parametrize(("share", "first"), [(0.0, 0), (0.5, 12), (1.0, 24)])
def test_the_first_steps_are_bitext_and_the_others_texts(share, first, tmp_path):
    found, rows = places(tmp_path, share)
    assert len(found) == 24
    assert all(place < 8 for place in found[:first])
    assert all(place >= 8 for place in found[first:])
    assert [rows[place].english is not None for place in found] == [True] * first + [False] * (24 - first)
    for part in (found[:first], found[first:]):  # each pass has every row once
        whole = part[: len(part) // 8 * 8]
        for begin in range(0, len(whole), 8):
            assert len(set(whole[begin : begin + 8])) == 8


def test_the_order_hangs_on_the_seed_alone_and_a_pass_is_not_the_one_before(tmp_path):
    torch.manual_seed(1)
    first, rows = places(tmp_path, 1.0)
    torch.manual_seed(2)
    assert places(tmp_path, 1.0)[0] == first
    assert first[:8] != first[8:16]
    assert list(rows.order(4, seed=4)) != first


def test_like_lengths_stand_together_in_each_part(tmp_path):
    long = [StackRow("word " * (20 * (n % 2) + 1), "eng_Latn", id=str(n)) for n in range(16)]
    write_texts(tmp_path / "texts", long, "x")
    found, rows = places(tmp_path, 0.5, "group_by_length", TextRows(tmp_path / "texts"), max_steps=8)
    for begin in range(16, 32, 4):
        assert len({len(rows[place].text) for place in found[begin : begin + 4]}) == 1


def test_a_curriculum_is_its_rows(tmp_path):
    _, rows = places(tmp_path)
    assert len(rows) == 16
    assert [rows[0], rows[1]] == parallel_rows()[:2]
    assert rows[-1] == english_rows()[-1]
    with pytest.raises(IndexError):
        rows[16]
    other = Curriculum(parallel_rows()[1:], english_rows(), rows.args)
    assert rows.digest != other.digest


# ---- Stage 1


def stage_1(folder, resume=None, lora=LORA, **keys):
    keys = {
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 2,
        "save_total_limit": 4,
        "merge_lora": False,
        "warmup_steps": 0,
    } | keys
    model = build_stack(make_mt(), make_llm())
    args = make_stack_args(folder, learning_rate=3e-3, **keys)
    align(model, *sources(), english_rows(), args, lora, bitext=parallel_rows(), resume=resume)
    return model


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("step", [2, 4])
def test_a_run_that_stops_in_either_part_ends_with_the_same_bits(step, tmp_path):
    model = stage_1(tmp_path / "run")
    whole = losses(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    again = stage_1(tmp_path / "again", resume=tmp_path / "again" / "checkpoints" / f"step-{step}")
    assert same(weights(again), weights(model))
    assert losses(tmp_path / "again") == whole
    with pytest.raises(ConfigError, match="bitext_share"):
        stage_1(tmp_path / "again", resume=tmp_path / "again" / "checkpoints" / "step-4", bitext_share=0.25)


def test_bitext_brings_other_languages_nearer(tmp_path):
    """What it is for: on the very pairs, the stack's vectors come nearer than with English alone."""
    found = {}
    for share in (0.0, 1.0):
        keys = {"max_steps": 40, "per_device_train_batch_size": 8, "save_strategy": "no", "bitext_share": share}
        model = stage_1(tmp_path / str(share), **keys)
        source, llm_source = sources()
        with torch.no_grad(), model.without_lora():
            taught = model.read_tokens(**llm_source.batch(TEXTS, [""] * 8)).pooled
        with torch.no_grad():
            read = model.eval()(**source.batch(FOREIGN, ["ind_Latn"] * 8)).pooled
        found[share] = float((read - taught).square().mean())
    assert found[1.0] < 0.8 * found[0.0]


def test_accumulation_and_both_ways_of_the_llm_s_tokens_work_with_it(tmp_path):
    keys = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "llm_tokens": True}
    stage_1(tmp_path, **keys)
    assert len(losses(tmp_path)) == 6


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(ConfigError, match="max_steps"):
        stage_1(tmp_path, max_steps=-1, num_train_epochs=1)
    with pytest.raises(DataError, match="en-0: bitext needs the row's English"):
        Curriculum(english_rows(), english_rows(), make_stack_args(tmp_path))
