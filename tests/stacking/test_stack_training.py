"""The stages of a stack: what moves and what does not, resume to the bit, and what is measured."""

import copy
import dataclasses
import json
import shutil

import pytest
import torch
from stack_helpers import (
    CHOICE,
    FOREIGN,
    LABELS,
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

from dudi.errors import ConfigError, DataError, NumericError
from dudi.stacking import (
    LoraSettings,
    Source,
    StackRow,
    Task,
    adapt,
    align,
    build_stack,
    distill,
    evaluate,
    finetune,
    probe,
    rows_from_records,
    translate,
    translate_rows,
    vectors,
    with_head,
)
from dudi.stacking.alignment import AlignmentLoss, start_connector, word_pairs
from dudi.stacking.building import merge
from dudi.stacking.evaluation import macro_f1
from dudi.stacking.fitting import token_span, with_choices
from dudi.stacking.mntp import IGNORED, MaskedNextToken
from dudi.stacking.probing import by_language

LORA = LoraSettings(r=4, dropout=0.1)
STAGE_1 = {
    "max_steps": 6,
    "per_device_train_batch_size": 8,
    "merge_lora": False,
    "learning_rate": 3e-3,
    "warmup_steps": 0,
    "save_strategy": "steps",
    "save_steps": 3,
    "probe_steps": 3,
}


@pytest.fixture(scope="module")
def source():
    return Source(make_nllb_tokenizer())


@pytest.fixture(scope="module")
def llm_source():
    return Source(make_llm_tokenizer())


@pytest.fixture
def stack():
    return build_stack(make_mt(), make_llm())


def records(folder, name="metrics.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def timeless(lines):
    """Records without what differs between two runs of the same."""
    return [{k: v for k, v in line.items() if not k.startswith(("time", "tokens", "memory"))} for line in lines]


# ---- Stage 1


@pytest.fixture(scope="module")
def aligned(tmp_path_factory, source, llm_source):
    """A short Stage 1 in the paper's form, with a checkpoint in its middle."""
    folder = tmp_path_factory.mktemp("aligned")
    model = build_stack(make_mt(), make_llm())
    before = {"encoder": weights(model.encoder), "llm": weights(model.llm)}
    args = make_stack_args(
        folder, **STAGE_1
    )  # fmt: skip
    align(model, source, llm_source, english_rows(), args, LORA, parallel_rows())
    return folder, model, before


def test_stage_1_moves_connector_and_adapter_alone(aligned):
    folder, model, before = aligned
    assert model.config.stage == "aligned"
    assert same(weights(model.encoder), before["encoder"])
    base = {n.replace(".base_layer", ""): t for n, t in weights(model.llm).items() if ".lora_" not in n}
    assert same(base, before["llm"])
    assert any(tensor.abs().sum() for name, tensor in weights(model.llm).items() if "lora_B" in name)
    lines = records(folder)
    assert lines[-1]["loss"] < lines[0]["loss"]
    probed = [line["step"] for line in lines if "fvu/ind_Latn" in line]
    assert probed == [3, 6]


def test_the_teacher_of_stage_1_is_the_llm_without_its_adapter_and_without_dropout(
    aligned, source, llm_source, tmp_path
):
    _, model, _ = aligned
    model = copy.deepcopy(model).train()
    objective = AlignmentLoss(source, llm_source, make_stack_args(tmp_path))
    _, sums = objective.loss(model, model, objective.collate(english_rows(), range(len(english_rows()))))
    assert model.training
    assert not model.encoder.training
    alone = build_stack(None, make_llm())
    with torch.no_grad():
        taught = alone(**llm_source.batch([row.text for row in english_rows()], [""] * len(english_rows()))).pooled
    assert torch.equal(sums["taught"], taught.sum(dim=0))
    assert torch.equal(sums["squares"], taught.square().sum())


def test_a_new_adapter_starts_from_the_seed_alone(aligned, source, llm_source, tmp_path):
    _, model, _ = aligned
    torch.manual_seed(1234)
    again = build_stack(make_mt(), make_llm())
    align(again, source, llm_source, english_rows(), make_stack_args(tmp_path, **STAGE_1), LORA)
    assert same(weights(again), weights(model))


def test_a_resumed_stage_gives_the_same_bits(aligned, source, llm_source, tmp_path):
    folder, model, _ = aligned
    shutil.copytree(folder, tmp_path / "run")
    again = build_stack(make_mt(), make_llm())
    args = make_stack_args(
        tmp_path / "run", **STAGE_1
    )  # fmt: skip
    step = tmp_path / "run" / "checkpoints" / "step-3"
    align(again, source, llm_source, english_rows(), args, LORA, parallel_rows(), resume=step)
    assert same(weights(again), weights(model))
    timeless = [
        {k: v for k, v in line.items() if not k.startswith(("time", "tokens", "memory"))} for line in records(folder)
    ]
    resumed = [
        {k: v for k, v in line.items() if not k.startswith(("time", "tokens", "memory"))}
        for line in records(tmp_path / "run")
    ]
    assert resumed == timeless


def test_a_checkpoint_holds_what_was_trained_and_belongs_to_its_run(aligned, source, llm_source, tmp_path):
    folder, _, _ = aligned
    from safetensors.torch import load_file

    saved = load_file(folder / "checkpoints" / "step-3" / "trained.safetensors")
    assert {"connector.weight", "connector.bias"} < saved.keys()
    assert all("lora_" in name for name in saved if not name.startswith("connector"))
    args = make_stack_args(tmp_path, **STAGE_1 | {"learning_rate": 5e-2})
    with pytest.raises(ConfigError, match="learning_rate"):
        align(
            build_stack(make_mt(), make_llm()), source, llm_source, english_rows(), args, LORA,
            resume=folder / "checkpoints" / "step-3",
        )  # fmt: skip


def test_accumulation_changes_nothing(source, llm_source, tmp_path):
    """Batches of 8 x 1, 2 x 4 and 3 x 3 (the last one short) take the same step."""
    found = []
    for size, accumulation in ((8, 1), (2, 4), (3, 3)):
        model = build_stack(make_mt(), make_llm())
        args = make_stack_args(
            tmp_path, max_steps=1, per_device_train_batch_size=size, gradient_accumulation_steps=accumulation,
            warmup_steps=0, connector_start="random", optim="sgd", max_grad_norm=0.0,
        )  # fmt: skip
        align(model, source, llm_source, english_rows(), args, LoraSettings(r=4))
        found.append(model.connector.weight.detach())
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_a_stage_stops_before_a_bad_number_reaches_the_weights(stack, source, llm_source, tmp_path):
    with torch.no_grad():
        stack.connector.weight[0, 0] = float("inf")
    args = make_stack_args(tmp_path, connector_start="random")
    with pytest.raises(NumericError, match="en-"):
        align(stack, source, llm_source, english_rows(), args)


# ---- least squares


def test_a_connector_that_has_learned_goes_on_as_it_is(source, llm_source, tmp_path):
    """Stage 1 on top of Stage 1 started it anew, by least squares, without a word."""
    stack = build_stack(make_mt(), make_llm())
    for steps, rate in ((3, 1e-2), (1, 1e-12)):
        before = stack.connector.weight.detach().clone()
        args = make_stack_args(tmp_path / str(steps), max_steps=steps, learning_rate=rate)
        align(stack, source, llm_source, english_rows(), args)
    torch.testing.assert_close(stack.connector.weight.detach(), before, rtol=0, atol=1e-9)


def test_the_connector_starts_where_least_squares_says(stack, source, llm_source):
    unexplained = start_connector(stack, source, llm_source, TEXTS, "eng_Latn")
    xs, ys = [], []
    embed = stack.llm.get_input_embeddings()
    below = source.encode(TEXTS, ["eng_Latn"] * len(TEXTS), offsets=True)
    above = llm_source.encode(TEXTS, [""] * len(TEXTS), offsets=True)
    with torch.no_grad():
        for text, low, high in zip(TEXTS, below, above, strict=True):
            states = stack.encode(torch.tensor([low["input_ids"]]), torch.ones(1, len(low["input_ids"])).long())[0]
            x, y = word_pairs(text, (low, states), (high, embed(torch.tensor(high["input_ids"]))))
            assert len(x) == len(text.split())
            xs.append(x)
            ys.append(y)
        x, y = torch.cat([torch.cat(xs), torch.ones(sum(map(len, xs)), 1)], dim=1), torch.cat(ys)
        # The sum over a normalised state is a constant, so one direction is rounding noise: pinv has to leave it out.
        best = torch.linalg.pinv(x, rtol=1e-5) @ y
        variance = (y - y.mean(dim=0)).square().sum()
        own = (stack.connector(x[:, :-1].float()).double() - y).square().sum() / variance
        ideal = (x @ best - y).square().sum() / variance
    assert float(own) == pytest.approx(unexplained, abs=1e-4)
    assert unexplained == pytest.approx(float(ideal), abs=1e-4)
    assert unexplained < 1.0


# ---- MNTP


def test_mntp_masks_tokens_and_predicts_them_from_the_place_in_front(llm_source, tmp_path):
    args = make_stack_args(tmp_path, mask_share=0.5)
    objective = MaskedNextToken(llm_source, args)
    batch = objective.collate(english_rows(), range(8))
    torch.manual_seed(0)
    ready = objective.prepare(batch)
    hidden = ready["labels"] != IGNORED
    assert not hidden[:, 0].any()
    assert not (hidden & (batch["attention_mask"] == 0)).any()
    share = float(hidden.sum() / (batch["attention_mask"][:, 1:]).sum())
    assert 0.35 < share < 0.65
    assert (ready["input_ids"][hidden] == objective.mask).all()
    assert torch.equal(ready["labels"][hidden], batch["input_ids"][hidden])
    assert torch.equal(ready["input_ids"][~hidden], batch["input_ids"][~hidden])
    # A model that always writes "the next token is what the label in front of it says" is right everywhere.
    model = make_llm()
    from dudi.objective.forward import open_forward

    open_forward(model)
    model.config.is_causal = False
    total, sums = objective.loss(model, model, ready)
    row, column = hidden.nonzero(as_tuple=True)
    with torch.no_grad():
        logits = model(input_ids=ready["input_ids"], attention_mask=ready["attention_mask"]).logits
    expected = torch.nn.functional.cross_entropy(logits[row, column - 1], ready["labels"][hidden], reduction="sum")
    torch.testing.assert_close(total, expected)
    assert objective.count(ready) == float(hidden.sum())
    assert 0 <= int(sums["right"]) <= int(hidden.sum())


def test_an_adapted_llm_is_merged_bidirectional_and_loads_as_a_causal_lm(llm_source, tmp_path):
    from transformers import AutoModelForCausalLM

    model = make_llm()
    before = weights(model)
    args = make_stack_args(tmp_path, max_steps=4, learning_rate=1e-2, warmup_steps=0)
    adapt(model, llm_source, english_rows(), args, LORA)
    assert weights(model).keys() == before.keys()
    assert not same(weights(model), before)
    assert torch.equal(model.lm_head.weight, before["lm_head.weight"])
    model.save_pretrained(tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert loaded.config.is_causal is False
    ids = torch.arange(5, 12)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model.eval()(ids).logits)


# ---- tasks


@pytest.fixture(scope="module")
def taught(tmp_path_factory, llm_source):
    """A tuned teacher and its vectors."""
    model = with_head(build_stack(None, make_llm()), TASK)
    args = make_stack_args(tmp_path_factory.mktemp("taught"), max_steps=8, learning_rate=1e-2, warmup_steps=0)
    finetune(model, llm_source, english_rows(), TASK, args, LORA, eval_rows=english_rows())
    return model, vectors(model, llm_source, english_rows())


def test_the_teacher_learns_its_task(taught, llm_source):
    model, stored = taught
    assert model.config.stage == model.stack.config.stage == "teacher"
    assert evaluate(model, llm_source, english_rows()).accuracy == 1.0
    with torch.no_grad():
        again = [model(**llm_source.batch([text], [""])).pooled[0] for text in TEXTS]
    torch.testing.assert_close(torch.stack(stored), torch.stack(again), rtol=1e-4, atol=1e-5)


def test_stage_2_learns_the_stored_vectors_and_leaves_head_and_connector(stack, taught, source, tmp_path):
    teacher, stored = taught
    connector, encoder = weights(stack.connector), weights(stack.encoder)
    head = teacher.score.weight.detach().clone()
    args = make_stack_args(
        tmp_path, max_steps=12, learning_rate=1e-2, warmup_steps=0, train_connector=False, per_device_train_batch_size=8
    )
    model = distill(stack, source, english_rows(), TASK, stored, head, args, LoraSettings(r=8))
    assert model.config.stage == "distilled"
    assert torch.equal(model.score.weight, head)
    assert same(weights(model.stack.connector), connector)
    assert same(weights(model.stack.encoder), encoder)
    lines = records(tmp_path)
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    with torch.no_grad():
        read = model.eval()(**source.batch(TEXTS, ["eng_Latn"] * 8)).pooled
    assert lines[-1]["loss"] == pytest.approx(float((read - torch.stack(stored)).square().mean()), rel=0.5)


def test_vectors_of_other_rows_or_another_head_are_refused(stack, taught, source, tmp_path):
    teacher, stored = taught
    args = make_stack_args(tmp_path)
    with pytest.raises(DataError, match="8 vectors for 7 rows"):
        distill(stack, source, english_rows()[1:], TASK, stored, teacher.score.weight.data, args)
    with pytest.raises(ConfigError, match="head"):
        distill(
            stack, source, english_rows(), Task("classification", ("a", "b")), stored, teacher.score.weight.data, args
        )


@pytest.mark.parametrize(
    ("model", "task", "rows", "error", "said"),
    [
        ("headed", TASK, [], DataError, "finetune: there are no rows to train on"),
        ("headed", TASK, TEXTS, ConfigError, "finetune: rows have to be StackRow, got str; see rows_from_records"),
        ("headed", TASK, [StackRow("a cat", "eng_Latn")], DataError, 'the row "a cat": no label'),
        (
            "headed",
            TASK,
            [StackRow("a cat", "eng_Latn", 3)],
            DataError,
            'the row "a cat": label 3 is not a number from',
        ),
        (
            "headed",
            TASK,
            [StackRow("a cat", "eng_Latn", -1, id="7")],
            DataError,
            "7: label -1 is not a number from 0 to 2",
        ),
        ("headed", CHOICE, choice_rows(), ConfigError, "choice needs a MTLLMForMultipleChoice, not a MTLLMForSeq"),
        (
            "headed",
            Task("classification", ("a", "b")),
            english_rows(),
            ConfigError,
            "the model's head has other classes",
        ),
        ("headed", Task("classification", TASK.labels[::-1]), english_rows(), ConfigError, "in another order"),
        ("unnamed", TASK, english_rows(), ConfigError, "task.labels: 3 classes, and the model's head has 2"),
        (
            "bare",
            TASK,
            english_rows(),
            ConfigError,
            r"not a MTLLMModel: put the task's head on with dudi.stacking.with",
        ),
    ],
)
def test_a_task_that_is_not_the_model_s_is_refused_before_anything_is_trained(
    model, task, rows, error, said, source, tmp_path
):
    """In Python these ended in an IndexError or an AttributeError, or trained another head than was meant."""
    bare = build_stack(make_mt(), make_llm())
    own = {"headed": TASK, "unnamed": Task("classification")}
    with pytest.raises(error, match=said):
        finetune(
            bare if model == "bare" else with_head(bare, own[model]), source, rows, task, make_stack_args(tmp_path)
        )


def test_other_stages_do_not_train_on_nothing_either(stack, source, llm_source, tmp_path):
    args = make_stack_args(tmp_path)
    with pytest.raises(DataError, match="align: there are no rows"):
        align(stack, source, llm_source, [], args)
    with pytest.raises(DataError, match="adapt: there are no rows"):
        adapt(make_llm(), llm_source, [], args)
    with pytest.raises(DataError, match="distill: there are no rows"):
        distill(stack, source, [], TASK, [], torch.zeros(3, 32), args)
    wrong = [StackRow("a cat", "eng_Latn", 5)]
    with pytest.raises(DataError, match="label 5 is not a number from 0 to 2"):
        distill(stack, source, wrong, TASK, [torch.zeros(32)], torch.zeros(3, 32), args)


def test_choices_are_read_over_their_own_tokens(source):
    rows = choice_rows()
    for row, ids in zip(rows, source.encode_rows(rows), strict=True):
        tokens = source.tokenizer.convert_ids_to_tokens(ids["input_ids"])
        for choice, (start, end) in zip(row.choices, ids["choice_spans"], strict=True):
            assert "".join(tokens[start:end]).replace("▁", " ").strip() == choice
    text, spans = with_choices(rows[0])
    assert [text[start:end] for start, end in spans] == list(rows[0].choices)
    assert text.startswith(f"{rows[0].text}\n1 {rows[0].choices[0]}\n2 ")
    assert token_span([(0, 0), (0, 3), (3, 5)], 3, 5) == (2, 3)
    assert token_span([(0, 0), (0, 3)], 9, 12) == (0, 0)


def test_a_choice_is_answered_and_distilled(source, llm_source, tmp_path):
    """Rows with three answers and rows with two in one batch: a missing one is never chosen and never learned from."""
    rows = [dataclasses.replace(row, label=row.label % 2) for row in choice_rows()]
    rows[1] = dataclasses.replace(rows[1], choices=rows[1].choices[:2])
    teacher = with_head(build_stack(None, make_llm()), CHOICE)
    finetune(teacher, llm_source, rows, CHOICE, make_stack_args(tmp_path / "teach"), LORA)
    stored = vectors(teacher, llm_source, rows)
    assert [tuple(vector.shape) for vector in stored[:2]] == [(3, 32), (2, 32)]
    stack = build_stack(make_mt(), make_llm())
    args = make_stack_args(tmp_path / "distill", max_steps=6, learning_rate=1e-2, per_device_train_batch_size=8)
    model = distill(stack, source, rows, CHOICE, stored, teacher.score.weight.data, args, LORA)
    lines = records(tmp_path / "distill")
    assert lines[-1]["loss"] < lines[0]["loss"]
    batch = source.collate(source.encode_rows(rows))
    with torch.no_grad():
        logits = model.eval()(**batch).logits
    assert logits[1, 2] == float("-inf")
    assert torch.isfinite(logits[0]).all()
    assert evaluate(model, source, rows).predictions == logits.argmax(dim=-1).tolist()


def test_an_encoder_alone_is_tuned_through_its_adapter(source, tmp_path):
    model = with_head(build_stack(make_mt(), None), TASK)
    args = make_stack_args(tmp_path, max_steps=8, learning_rate=2e-2, warmup_steps=0)
    finetune(model, source, english_rows(), TASK, args, LORA)
    assert model.config.parts == "encoder"
    assert model.config.stage == "finetuned"
    lines = records(tmp_path)
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_the_best_checkpoint_on_validation_is_kept(source, tmp_path):
    model = with_head(build_stack(make_mt(), make_llm()), TASK)
    args = make_stack_args(
        tmp_path, max_steps=4, eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2,
        load_best_model_at_end=True, metric_for_best_model="accuracy", learning_rate=1e-2,
    )  # fmt: skip
    finetune(model, source, english_rows(), TASK, args, LORA, eval_rows=english_rows())
    best = max(line["eval_accuracy"] for line in records(tmp_path, "eval.jsonl"))
    assert evaluate(model, source, english_rows()).accuracy == best


# ---- evaluation


def test_answers_come_in_the_order_of_the_rows_whatever_the_batch(stack, source):
    model = with_head(stack, TASK)
    rows = [*english_rows(), *parallel_rows()]
    whole, single = evaluate(model, source, rows, batch_size=16), evaluate(model, source, rows, batch_size=1)
    assert whole.predictions == single.predictions
    assert list(whole.per_language) == ["eng_Latn", "ind_Latn"]
    english = [label == answer for label, answer in zip(LABELS, whole.predictions, strict=False)]
    assert whole.per_language["eng_Latn"] == {
        "n": 8.0,
        "accuracy": sum(english) / 8,
        "macro_f1": macro_f1(list(zip(LABELS, whole.predictions, strict=False))),
    }


def test_macro_f1_is_the_mean_of_the_classes():
    # Class 0: one of two found, none wrong: 2/3. Class 1: found, one wrong: 2/3. Class 2 is nowhere.
    assert macro_f1([(0, 0), (0, 1), (1, 1)]) == pytest.approx(2 / 3)
    assert macro_f1([(0, 2)]) == 0.0


def test_an_unknown_code_in_a_row_names_the_row_and_the_nearest_code(stack, source):
    rows = [*english_rows(), StackRow("x", "kaz_Latn", 0, id="rows.jsonl:9")]
    with pytest.raises(DataError, match=r"rows\.jsonl:9: .*'kaz_Latn'.*kaz_Cyrl"):
        evaluate(with_head(stack, TASK), source, rows)


def test_the_probe_measures_what_it_says(aligned, source, llm_source):
    goal = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    languages = ["a"] * 3 + ["b"] * 3
    perfect = by_language(languages, goal, goal)
    assert perfect["a"]["fvu"] == 0.0
    assert perfect["b"]["cosine"] == pytest.approx(1.0)
    means = torch.cat([goal[:3].mean(0).expand(3, 4), goal[3:].mean(0).expand(3, 4)])
    assert by_language(languages, means, goal)["a"]["fvu"] == pytest.approx(1.0, abs=1e-5)
    _, model, _ = aligned
    rows = [StackRow(text, "eng_Latn", english=text) for text in TEXTS]
    found = probe(model, source, llm_source, [*rows, *parallel_rows()], batch_size=3)
    assert found["eng_Latn"]["fvu"] < found["ind_Latn"]["fvu"]
    with pytest.raises(DataError, match="English"):
        probe(model, source, llm_source, english_rows())


def test_the_probe_of_a_merged_stack_takes_its_teacher_from_outside(aligned, source, llm_source):
    _, model, _ = aligned
    rows = [StackRow(text, "eng_Latn", english=text) for text in TEXTS]
    before = probe(model, source, llm_source, rows)
    merged = copy.deepcopy(model)
    merge(merged)
    assert probe(merged, source, llm_source, rows, teacher=model)["eng_Latn"] == pytest.approx(
        before["eng_Latn"], abs=1e-4
    )
    assert probe(merged, source, llm_source, rows)["eng_Latn"]["fvu"] != pytest.approx(
        before["eng_Latn"]["fvu"], abs=1e-4
    )


def test_a_batch_is_translated_as_each_text_alone(source):
    mt = make_mt()
    options = {"num_beams": 3, "max_new_tokens": 6}
    together = translate(mt, source, FOREIGN[:4], ["ind_Latn"] * 4, "eng_Latn", batch_size=4, **options)
    alone = [translate(mt, source, [text], ["ind_Latn"], "eng_Latn", **options)[0] for text in FOREIGN[:4]]
    assert together == alone
    with pytest.raises(ConfigError, match="xyz_Latn"):
        translate(mt, source, FOREIGN[:1], ["ind_Latn"], "xyz_Latn")
    with pytest.raises(ConfigError, match="no decoder"):
        translate(mt.get_encoder(), source, FOREIGN[:1], ["ind_Latn"], "eng_Latn")


def test_translation_begins_with_the_target_s_code(source):
    code = source.tokenizer.convert_tokens_to_ids("tha_Thai")
    batch = source.batch(FOREIGN[:1], ["ind_Latn"])
    written = make_mt().generate(**batch, forced_bos_token_id=code, max_new_tokens=2)
    assert source.tokenizer.convert_ids_to_tokens(int(written[0, 1])) == "tha_Thai"


def test_only_foreign_rows_are_translated_and_all_their_texts(source, monkeypatch):
    asked = []

    def upper(model, source, texts, languages, target, **options):
        asked.extend(zip(texts, languages, strict=True))
        return [text.upper() for text in texts]

    monkeypatch.setattr("dudi.stacking.translation.translate", upper)
    rows = [
        StackRow("a", "eng_Latn", 0, pair="b"),
        StackRow("c", "ind_Latn", 1, pair="d"),
        StackRow("e", "tha_Thai", 0, choices=("f", "g")),
    ]
    done = translate_rows(make_mt(), source, rows, "eng_Latn").rows
    assert done[0] == rows[0]
    assert done[1] == dataclasses.replace(rows[1], text="C", pair="D", language="eng_Latn")
    assert done[2] == dataclasses.replace(rows[2], text="E", choices=("F", "G"), language="eng_Latn")
    assert asked == [("c", "ind_Latn"), ("d", "ind_Latn"), *((text, "tha_Thai") for text in "efg")]


# ---- rows


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"text": "a", "label": 0}, "no language"),
        ({"text": " ", "label": 0, "language": "eng_Latn"}, "'text' has to be text that is not empty"),
        ({"text": "a", "label": "animall", "language": "eng_Latn"}, "did you mean 'animal'"),
        ({"text": "a", "label": 3, "language": "eng_Latn"}, "label 3 is not a number from 0 to 2"),
        ({"text": "a", "label": True, "language": "eng_Latn"}, "label true"),
        ("a", "is no mapping"),
    ],
)
def test_a_record_that_is_no_row_says_why(record, said):
    with pytest.raises(DataError, match=f"rows:1: .*{said}"):
        rows_from_records([record], TASK)


def test_rows_are_read_through_their_own_columns():
    record = {"premise": "a", "hypothesis": "b", "label": "thing", "lang": "ind_Latn"}
    columns = {"text": "premise", "pair": "hypothesis", "language": "lang"}
    assert rows_from_records([record], TASK, columns=columns) == [StackRow("a", "ind_Latn", 1, pair="b", id="rows:1")]
    with pytest.raises(DataError, match="at least two answers"):
        rows_from_records([{"text": "a", "language": "x", "choices": ["one"]}], CHOICE)
