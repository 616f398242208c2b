"""A stack that writes: its head, its prompt, what it learns, and `dudi stack generate`."""

import json

import pytest
import torch
from safetensors.torch import load_file
from stack_helpers import (
    FOREIGN,
    TASK,
    TEXTS,
    english_rows,
    make_llm,
    make_llm_tokenizer,
    make_mt,
    make_nllb_tokenizer,
    make_stack_args,
)
from transformers import AutoModelForCausalLM

from dudi.errors import ConfigError, DataError
from dudi.program.cli import main
from dudi.stacking import (
    LoraSettings,
    MTLLMForCausalLM,
    Source,
    StackRow,
    Task,
    align,
    build_stack,
    distill,
    finetune,
    rows_from_records,
    stored,
    with_head,
    with_lm_head,
    write,
)
from dudi.stacking.generating import NO_LABEL, whole_llm
from dudi.stacking.writing import AnswerWording, WritingLoss
from helpers import CHATML

LORA = LoraSettings(r=4)
ASKED = Task("generation", prompt="who is it about?")
ANSWERS = ["the cat", "a dog", "we", "the sun", "she", "they", "my friend", "the train"]


def answered():
    return [StackRow(text, "eng_Latn", id=f"en-{n}", answer=ANSWERS[n]) for n, text in enumerate(TEXTS)]


def source(own=False):
    return Source(make_nllb_tokenizer(), beside=Source(make_llm_tokenizer()) if own else None)


def causal(kind="llama"):
    llm = make_llm(kind)
    if kind == "gpt2":  # its random weights are so small that it writes one token for ever
        for parameter in llm.parameters():
            parameter.data *= 10
    return with_lm_head(build_stack(make_mt(), llm, attention="causal"), llm).eval()


def tied_llm():
    return make_llm_of(tie_word_embeddings=True)


def make_llm_of(**extra):
    from helpers import make_model

    return make_model("qwen3", seed=1, **extra)


@pytest.fixture
def parents(tmp_path):
    for name, parent in (("encoder", make_mt()), ("llm", make_llm()), ("tied", tied_llm())):
        parent.save_pretrained(tmp_path / name)
    make_nllb_tokenizer().save_pretrained(tmp_path / "encoder")
    for name in ("llm", "tied"):
        make_llm_tokenizer().save_pretrained(tmp_path / name)
    return tmp_path


def logits_of(model, rows):
    objective = WritingLoss(source(), ASKED, make_stack_args("unused"), make_llm_tokenizer())
    batch = objective.collate(rows, range(len(rows)))
    keys = ("input_ids", "attention_mask", "prompt_ids", "prompt_attention_mask", "labels")
    with torch.no_grad():
        return model.eval()(**{key: batch[key] for key in keys}).logits


# ---- the prompt


def test_a_prompt_is_in_the_chat_template_where_there_is_one():
    tokenizer = make_llm_tokenizer()
    assert tokenizer.chat_template == CHATML
    wording = AnswerWording(tokenizer)
    batch, long = wording.batch("who?", ["the cat", "a dog runs over"], max_length=64)
    text = tokenizer.decode(batch["prompt_ids"][0][batch["prompt_attention_mask"][0] == 1])
    assert text == "<|im_start|>user\nwho?<|im_end|><|im_start|>assistant\nthe cat<|im_end|>"
    learned = batch["labels"][0][batch["labels"][0] != NO_LABEL]
    assert tokenizer.decode(learned) == "the cat<|im_end|>"
    assert long == [False, False]
    assert wording.text([*learned.tolist(), 7, 8]) == "the cat"
    tokenizer.chat_template = None
    plain = AnswerWording(tokenizer)
    assert tokenizer.decode(plain.prompt_ids("who?")) == "who?"
    ids = plain.answer_ids("who?", "the cat")
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1]) == " the cat"
    assert tokenizer.decode(plain.answer_ids("", "the cat")[:-1]) == "the cat"
    assert plain.prompt_ids("") == []


def test_an_answer_that_is_too_long_is_cut_and_counted():
    batch, long = AnswerWording(make_llm_tokenizer()).batch("who?", ["the cat sleeps in the house", "it"], max_length=3)
    assert long == [True, False]
    assert (batch["labels"][0] != NO_LABEL).sum() == 3


# ---- what is written


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_a_batch_with_padding_writes_what_each_row_alone_does(kind, own):
    from dudi.stacking import read_own_tokens

    model = causal(kind)
    reads = source(own)
    if own:
        read_own_tokens(model, seed=2)
    texts = [*TEXTS[:3], TEXTS[1] + " " + TEXTS[4], FOREIGN[0]]
    languages = ["eng_Latn"] * 4 + ["ind_Latn"]
    asked, _ = AnswerWording(make_llm_tokenizer()).batch("who?", [None], max_length=64)
    ids = {key: asked[key] for key in ("prompt_ids", "prompt_attention_mask")}
    many = {key: value.repeat(5, 1) for key, value in ids.items()}
    together = model.generate(**reads.batch(texts, languages), **many, max_new_tokens=6, eos_token_id=None)
    assert together.shape == (5, 6)
    for place, (text, language) in enumerate(zip(texts, languages, strict=True)):
        alone = model.generate(**reads.batch([text], [language]), **ids, max_new_tokens=6, eos_token_id=None)
        assert together[place].tolist() == alone[0].tolist()
    assert len({tuple(row) for row in together.tolist()}) > 1


def test_what_is_written_is_the_likeliest_token_each_time():
    """Against a loop without a cache over the LLM's own causal model."""
    llm = make_llm()
    model = with_lm_head(build_stack(make_mt(), llm, attention="causal"), llm).eval()
    batch = source().batch(TEXTS[:1], ["eng_Latn"])
    asked, _ = AnswerWording(make_llm_tokenizer()).batch("who?", [None], max_length=64)
    with torch.no_grad():
        states = model.stack.connector(model.stack.encode(batch["input_ids"], batch["attention_mask"]))
        embeds = torch.cat([states, llm.model.embed_tokens(asked["prompt_ids"])], dim=1)
        expected = []
        for _ in range(5):
            expected.append(int(llm.eval()(inputs_embeds=embeds).logits[0, -1].argmax()))
            embeds = torch.cat([embeds, llm.model.embed_tokens(torch.tensor([[expected[-1]]]))], dim=1)
    found = model.generate(**batch, prompt_ids=asked["prompt_ids"], max_new_tokens=5, eos_token_id=None, pad_token_id=0)
    assert found[0].tolist() == expected


def test_the_forward_is_the_causal_model_s_own():
    llm = make_llm()
    model = with_lm_head(build_stack(make_mt(), llm, attention="causal"), llm).eval()
    rows = answered()[:3]
    objective = WritingLoss(source(), ASKED, make_stack_args("unused"), make_llm_tokenizer())
    batch = objective.collate(rows, range(3))
    total, sums = objective.loss(model, model, batch)
    expected, right = 0.0, 0
    for row in rows:
        one = objective.collate([row], [0])
        with torch.no_grad():
            states = model.stack.connector(model.stack.encode(one["input_ids"], one["attention_mask"]))
            embeds = torch.cat([states, llm.model.embed_tokens(one["prompt_ids"])], dim=1)
            logits = llm.eval()(inputs_embeds=embeds).logits[0, states.shape[1] - 1 : -1]
        labels = one["labels"][0]
        expected += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=NO_LABEL))
        right += int(((logits.argmax(-1) == labels) & (labels != NO_LABEL)).sum())
    assert total.item() == pytest.approx(expected, rel=1e-4)
    assert int(sums["right"]) == right
    assert objective.count(batch) == float((batch["labels"] != NO_LABEL).sum())


# ---- what cannot write


def test_what_cannot_write_is_refused_with_advice():
    with pytest.raises(ConfigError, match=r"reads in both directions .* llm\.attention=causal"):
        with_lm_head(build_stack(make_mt(), make_llm()))
    with pytest.raises(ConfigError, match="needs an encoder and an LLM"):
        with_lm_head(build_stack(None, make_llm(), attention="causal"))
    with pytest.raises(ConfigError, match="head of this LLM is not at hand"):
        with_lm_head(build_stack(make_mt(), make_llm(), attention="causal"))
    with pytest.raises(ConfigError, match="no model of the kind 'm2m_100' that writes"):
        whole_llm(make_mt().get_encoder(), None)
    model = causal()
    with pytest.raises(ValueError, match="generate"):
        model(**source().batch(TEXTS[:1], ["eng_Latn"]))
    short = make_llm("gpt2")
    model = with_lm_head(build_stack(make_mt(), short, attention="causal"), short)
    with pytest.raises(ConfigError, match="256 positions, and max_new_tokens"):
        write(model, source(), make_llm_tokenizer(), answered()[:1], "who?", max_new_tokens=250)


# ---- learning to write


def test_answers_are_learned_and_written(tmp_path):
    model = causal()
    keys = {"max_steps": 60, "per_device_train_batch_size": 8, "lr_scheduler_type": "constant"}
    args = make_stack_args(tmp_path, learning_rate=1e-2, warmup_steps=0, **keys)
    reads = source()
    before = model.lm_head.weight.clone()
    finetune(model, reads, answered(), ASKED, args, LORA, eval_rows=answered()[:2], llm_tokenizer=make_llm_tokenizer())
    assert model.config.stage == "finetuned"
    assert torch.equal(model.lm_head.weight, before)
    found = write(model, reads, make_llm_tokenizer(), answered(), ASKED.prompt, max_new_tokens=8, batch_size=3)
    assert sum(one == two for one, two in zip(found, ANSWERS, strict=True)) >= 7


def test_a_stopped_run_goes_on_to_the_bit(tmp_path):
    args = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "llm_tokens": True}
    models = []
    for resume in (None, tmp_path / "run" / "checkpoints" / "step-2"):
        model = causal()
        own = make_stack_args(tmp_path / "run", learning_rate=1e-2, **args)
        finetune(model, source(), answered(), ASKED, own, LORA, llm_tokenizer=make_llm_tokenizer(), resume=resume)
        models.append(model)
    first, second = ({name: p for name, p in model.named_parameters() if p.requires_grad} for model in models)
    assert {"stack.boundary.weight", "stack.connector.weight"} < first.keys()
    assert not any("lm_head" in name for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_rows_without_an_answer_and_stages_that_cannot_learn_it_are_refused(tmp_path):
    args = make_stack_args(tmp_path)
    with pytest.raises(DataError, match="en-0: no answer"):
        finetune(causal(), source(), english_rows(), ASKED, args, LORA, llm_tokenizer=make_llm_tokenizer())
    with pytest.raises(ConfigError, match="the LLM's tokenizer is missing"):
        finetune(causal(), source(), answered(), ASKED, args, LORA)
    with pytest.raises(ConfigError, match="a written answer has no vector"):
        distill(build_stack(make_mt(), make_llm()), source(), answered(), ASKED, [], torch.zeros(1), args, LORA)


def test_answers_are_texts_or_numbers_of_named_classes():
    record = {"text": "a", "pair": "b", "answer": "it", "language": "eng_Latn"}
    assert rows_from_records([record], ASKED) == [StackRow("a", "eng_Latn", pair="b", id="rows:1", answer="it")]
    named = Task("generation", TASK.labels)
    assert rows_from_records([record | {"answer": 1}], named)[0].answer == "thing"
    for wrong, said in ((3, "is not a number from 0 to 2"), (True, "label true"), (" ", "'answer' has to be text")):
        with pytest.raises(DataError, match=said):
            rows_from_records([record | {"answer": wrong}], named)
    with pytest.raises(DataError, match="'answer' has to be text"):
        rows_from_records([record | {"answer": 1}], ASKED)


# ---- from disk


@pytest.mark.parametrize(("name", "head"), [("llm", "linear"), ("tied", "tied")])
@pytest.mark.parametrize("lora", [LORA, None])
def test_it_comes_back_from_disk_to_the_bit(name, head, lora, parents, tmp_path):
    """With an adapter the head is the parent's and is not saved; of an LLM that learned whole it is saved too."""
    model = with_head(build_stack(str(parents / "encoder"), str(parents / name), attention="causal"), ASKED)
    assert type(model) is MTLLMForCausalLM
    assert model.config.head == head
    args = make_stack_args(tmp_path / "run", learning_rate=1e-2)
    finetune(model, source(), answered(), ASKED, args, lora, llm_tokenizer=make_llm_tokenizer())
    for whole in (False, True):
        folder = tmp_path / f"model-{whole}"
        stored.save_model(folder, model, make_nllb_tokenizer(), make_llm_tokenizer(), {}, whole=whole)
        loaded, _, _ = stored.open_model(str(folder))
        assert type(loaded) is MTLLMForCausalLM
        assert (loaded.config.prompt, loaded.config.task) == (ASKED.prompt, "generation")
        assert torch.equal(logits_of(loaded, answered()), logits_of(model, answered()))
        auto = AutoModelForCausalLM.from_pretrained(folder)
        assert torch.equal(logits_of(auto, answered()), logits_of(model, answered()))
    saved = set(load_file(tmp_path / "model-False" / "trained.safetensors"))
    assert ("lm_head.weight" in saved) is (lora is None and head == "linear")


# ---- the command line


def words(stage, parents, output, *more):
    return [
        "stack", stage, str(parents / "own.yaml"), "max_steps=2", "per_device_train_batch_size=2", "max_length=64",
        "use_cpu=true", "disable_tqdm=true", "--output", str(output), *more,
    ]  # fmt: skip


@pytest.fixture
def recipe(parents):
    rows = [{"id": row.id, "text": row.text, "language": row.language, "answer": row.answer} for row in answered()]
    pairs = [{"text": f, "english": t, "language": "ind_Latn"} for t, f in zip(TEXTS, FOREIGN, strict=True)]
    for name, lines in (("rows", rows), ("pairs", pairs)):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (parents / f"{name}.jsonl").write_text(text, encoding="utf-8")
    (parents / "own.yaml").write_text(
        f"encoder: {parents}/encoder\nllm: {{model: {parents}/llm, attention: causal}}\nlora: {{r: 4}}\n"
        f"data: {{train: {parents}/rows.jsonl}}\ntask: {{kind: generation, prompt: who?}}\n",
        encoding="utf-8",
    )
    return parents


def test_bitext_then_a_task_that_is_written_then_generate(recipe, tmp_path, capsys):
    """The three keys together, through the command line."""
    bitext = [f"data.bitext={recipe}/pairs.jsonl", "llm_tokens=true"]
    assert main(words("align", recipe, tmp_path / "align", *bitext, "--dry-run")) == 0
    assert "bitext   8" in capsys.readouterr().out
    assert main(words("align", recipe, tmp_path / "align", *bitext)) == 0
    assert "8 rows of bitext, which come first: ind_Latn 8" in capsys.readouterr().out
    data = json.loads((tmp_path / "align" / "data.json").read_text(encoding="utf-8"))
    assert data["bitext"]["rows"] == {"ind_Latn": 8}
    assert main(words("finetune", recipe, tmp_path / "task", f"start={tmp_path}/align")) == 0
    assert f"dudi stack generate {tmp_path}/task" in capsys.readouterr().out
    card = (tmp_path / "task" / "README.md").read_text(encoding="utf-8")
    assert "generate" in card
    assert "does not write" not in card
    command = ["stack", "generate", str(tmp_path / "task")]
    assert main([*command, "--text", FOREIGN[0], "--language", "ind_Latn", "--max-new-tokens", "3"]) == 0
    capsys.readouterr()
    out = tmp_path / "written.jsonl"
    assert main([*command, str(recipe / "rows.jsonl"), "--max-new-tokens", "3", "--output", str(out)]) == 0
    assert "word for word: eng_Latn" in capsys.readouterr().out
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == [row.id for row in answered()]
    assert all(line["prompt"] == "who?" and line["right"] == (line["written"] == line["answer"]) for line in lines)
    assert main(["stack", "eval", str(tmp_path / "task"), str(recipe / "rows.jsonl")]) == 2
    assert "dudi stack generate" in capsys.readouterr().err


def test_a_stack_that_was_only_aligned_writes_with_its_parent_s_head_and_says_so(recipe, tmp_path, capsys):
    assert main(words("align", recipe, tmp_path / "align")) == 0
    capsys.readouterr()
    command = ["stack", "generate", str(tmp_path / "align"), str(recipe / "rows.jsonl"), "--max-new-tokens", "2"]
    assert main([*command, "--prompt", "who?"]) == 0
    shown = capsys.readouterr().out
    assert "was not tuned to write (stage 'aligned')" in shown
    assert "eng_Latn  en-0  " in shown
    assert "shortened" not in shown
    assert main([*command, "--prompt", "who?", "--max-length", "5", "--max-rows", "2"]) == 0
    shown = capsys.readouterr().out
    assert "note: rows longer than 5 tokens were shortened: eng_Latn 2" in shown


@pytest.mark.parametrize(
    ("stage", "extra", "code", "said"),
    [
        ("finetune", ["llm.attention=bidirectional"], 2, "llm.attention=causal"),
        ("finetune", ["encoder=null"], 2, "encoder.model: name the encoder"),
        ("finetune", ["llm=null"], 2, "generation: needs an encoder and an LLM"),
        ("finetune", ["data.columns={answer: none}"], 2, "data.columns: {}/rows.jsonl: no row has a column 'none'"),
        ("teach", [], 2, "generation is learned by dudi stack finetune, not by teach"),
        ("distill", [], 2, "generation is learned by dudi stack finetune, not by distill"),
        ("align", ["data.bitext=/no/such.jsonl"], 2, "no such file"),
        ("align", ["data.bitext={}/rows.jsonl"], 0, ""),
        ("align", ["data.bitext={}/rows.jsonl", "bitext_share=2"], 2, "bitext_share: must be at most 1"),
        ("align", ["llm_tokens=perhaps"], 2, "llm_tokens"),
    ],
)
def test_wrong_input_is_one_line(stage, extra, code, said, recipe, tmp_path, capsys):
    assert main(words(stage, recipe, tmp_path / "run", *(word.replace("{}", str(recipe)) for word in extra))) == code
    error = capsys.readouterr().err.strip()
    assert said.replace("{}", str(recipe)) in error
    assert len(error.splitlines()) <= 2


def test_generate_says_what_is_missing(recipe, tmp_path, capsys):
    stack = align(
        build_stack(str(recipe / "encoder"), str(recipe / "llm")), source(), Source(make_llm_tokenizer()),
        english_rows(), make_stack_args(tmp_path / "a"), LORA,
    )  # fmt: skip
    stored.save_model(tmp_path / "both", stack, make_nllb_tokenizer(), make_llm_tokenizer(), {})
    stored.save_model(tmp_path / "head", with_head(stack, TASK), make_nllb_tokenizer(), make_llm_tokenizer(), {})
    text = ["--text", "a", "--language", "eng_Latn"]
    for more, said in (
        ([str(tmp_path / "both")], "give ROWS, or --text and --language"),
        ([str(tmp_path / "both"), "--text", "a"], "its language with --language"),
        ([str(tmp_path / "both"), *text, "--split", "dev"], "--text: is one text"),
        ([str(tmp_path / "both"), *text], "reads in both directions"),
        ([str(tmp_path / "head"), *text], "answers with a classification and does not write"),
        ([str(tmp_path / "nothing"), *text], "no such folder"),
    ):
        assert main(["stack", "generate", *more]) == 2
        assert said in capsys.readouterr().err
