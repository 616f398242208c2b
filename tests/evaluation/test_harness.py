"""lm_eval over a loaded model: its numbers, our names, languages, questions and standard errors."""

import dataclasses
import json
import math
import statistics

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from dudi.data.chat import chat_format, plain_format
from dudi.data.task_files import shipped_tasks
from dudi.errors import ConfigError, EnvironmentFault
from dudi.evaluation.harness.names import Named, language_of, named_tasks, suffixes, told_apart
from dudi.evaluation.harness.options import Options
from dudi.evaluation.harness.questions import choose_tasks
from helpers import CHATML, make_model, make_tokenizer
from task_sets import NEWS, SIB, write_parquet

pytest.importorskip("lm_eval")


@pytest.fixture(scope="module")
def model():
    return make_model("qwen2", seed=3).eval()


@pytest.fixture(scope="module")
def asked(model, tokenizer, sets):
    """Sets of every kind in Thai and English, asked once."""
    words = ["sib200", "belebele", "ntrex_bits", "ntrex_bits_from_en", "ntrex_to_en"]
    options = Options(data=sets, gen_kwargs={"max_gen_toks": 4}, batch_size=3)
    questions = choose_tasks(words, ["th", "en"], options)
    runs, lines, about = put(questions, model, tokenizer, [1234])
    return questions, runs, lines, about


def put(questions, model, tokenizer, seeds):
    """Scores by seed, lines, further facts."""
    chat = chat_format(tokenizer, {}, "tiny") if tokenizer.chat_template else plain_format(tokenizer)
    found = questions.ask(model, chat, seeds)
    return found.runs, found.answers, found.about


def of_task(lines, task, language):
    return [line for line in lines if (line["task"], line["language"]) == (task, language)]


def nats(model, tokenizer, before, after):
    """The cost of a text behind another, from the model's own logits."""
    ids, text = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after))
    with torch.no_grad():
        rows = model(input_ids=torch.tensor([[*ids, *text]])).logits[0, len(ids) - 1 : -1].double().log_softmax(-1)
    return -float(rows.gather(-1, torch.tensor(text)[:, None]).sum())


# what is measured


def test_multiple_choice_by_likelihood(asked, model, tokenizer):
    _, runs, lines, _ = asked
    own = of_task(lines, "sib200", "th")
    assert [line["reference"] for line in own] == ["สุขภาพ", "ภูมิศาสตร์"] and SIB["th"]["test"][0][0] in own[0]["question"]
    topics = ["วิทยาศาสตร์/เทคโนโลยี", "การท่องเที่ยว", "การเมือง", "กีฬา", "สุขภาพ", "บันเทิง", "ภูมิศาสตร์"]
    for line in own:
        costs = [nats(model, tokenizer, line["question"], f" {topic}") for topic in topics]
        assert line["log_likelihoods"] == pytest.approx([-cost for cost in costs], abs=2e-3)
        assert line["answer"] == topics[costs.index(min(costs))]
        assert line["scores"]["acc"] == float(line["answer"] == line["reference"])
    leaf = runs[0].scores["by_language_and_task"]["th"]["sib200"]
    assert leaf["acc"] == statistics.fmean(line["scores"]["acc"] for line in own) and leaf["questions"] == 2


def test_bits_per_byte_of_a_text_and_of_a_translation(asked, model, tokenizer):
    _, runs, lines, _ = asked
    leaves = runs[0].scores["by_language_and_task"]["th"]
    bos = tokenizer.eos_token  # no bos: lm_eval takes the end of text
    bits = [nats(model, tokenizer, bos, text) / math.log(2) for text in NEWS["th"]]
    sizes = [len(text.encode()) for text in NEWS["th"]]
    assert leaves["ntrex_bits"]["bits_per_byte"] == pytest.approx(sum(bits) / sum(sizes), rel=1e-4)
    own = of_task(lines, "ntrex_bits", "th")
    assert [line["scores"]["bits_per_byte"] for line in own] == pytest.approx(
        [b / s for b, s in zip(bits, sizes, strict=True)], rel=1e-4
    )
    assert [line["weights"]["bits_per_byte"] for line in own] == sizes
    given = [
        nats(model, tokenizer, f"Translate into Thai.\n\nEnglish: {en}\nThai:", f" {th}") / math.log(2)
        for en, th in zip(NEWS["en"], NEWS["th"], strict=True)
    ]
    assert leaves["ntrex_bits_from_en"]["bits_per_byte"] == pytest.approx(sum(given) / sum(sizes), rel=1e-4)
    assert "acc" not in leaves["ntrex_bits_from_en"]


def test_translations_are_scored_by_chrf(asked):
    from sacrebleu import corpus_chrf, sentence_chrf

    _, runs, lines, _ = asked
    own = of_task(lines, "ntrex_to_en", "th")
    answers, references = [line["answer"] for line in own], [line["reference"] for line in own]
    assert references == NEWS["en"] and any(answers)
    leaf = runs[0].scores["by_language_and_task"]["th"]["ntrex_to_en"]
    assert leaf["chrf++"] == pytest.approx(corpus_chrf(answers, [references], word_order=2).score)
    assert leaf["chrf"] == pytest.approx(corpus_chrf(answers, [references]).score)
    expected = [
        sentence_chrf(answer, [right], word_order=2).score for answer, right in zip(answers, references, strict=True)
    ]
    assert [line["scores"]["chrf++"] for line in own] == pytest.approx(expected)


def test_means_of_cells_and_their_errors(asked):
    _, runs, _, _ = asked
    scores = runs[0].scores
    cells = [leaf for own in scores["by_language_and_task"].values() for leaf in own.values()]
    assert len(cells) == 8 and scores["overall"]["questions"] == sum(leaf["questions"] for leaf in cells) == 14
    accuracies = [leaf["acc"] for leaf in cells if "acc" in leaf]
    assert len(accuracies) == 4 and scores["overall"]["acc"] == pytest.approx(statistics.fmean(accuracies))
    thai = scores["by_language_and_task"]["th"]
    assert scores["by_language"]["th"]["bits_per_byte"] == pytest.approx(
        (thai["ntrex_bits"]["bits_per_byte"] + thai["ntrex_bits_from_en"]["bits_per_byte"]) / 2
    )
    errors = [thai[name]["stderr"]["bits_per_byte"] for name in ("ntrex_bits", "ntrex_bits_from_en")]
    assert scores["by_language"]["th"]["stderr"]["bits_per_byte"] == pytest.approx(math.hypot(*errors) / 2)
    assert set(scores["by_task"]) == {"sib200", "belebele", "ntrex_bits", "ntrex_bits_from_en", "ntrex_to_en"}


def test_the_record_says_what_was_asked_and_with_what(asked):
    questions, _, lines, about = asked
    how = questions.benchmark
    assert how["name"] == "lm-eval" and how["version"].startswith("0.4.") and how["languages"] == ["en", "th"]
    assert "dudi_sib200_th 1.0" in how["tasks"] and how["questions"] == len(lines) == questions.total
    assert about["tasks"]["dudi_belebele_th"]["dataset_path"] == "facebook/belebele"
    assert any("ntrex_to_en: no task in en" in note for note in about["notes"])
    assert all(json.loads(json.dumps(line)) == line for line in lines)


def test_every_question_in_its_words(asked):
    questions, _, lines, _ = asked
    prompts = list(questions.prompts())
    own = [prompt for prompt in prompts if SIB["th"]["test"][0][0] in prompt]
    assert len(prompts) == questions.total and own and {line["question"] for line in lines} >= {*own}


def test_standard_errors():
    from lm_eval.api.metrics import bits_per_byte, f1_score, mean

    from dudi.evaluation.harness.results import standard_error

    assert standard_error("acc", [1.0, 0.0, 1.0, 1.0], mean) == pytest.approx(math.sqrt(0.25 / 4))
    assert standard_error("acc", [1.0], mean) is None
    draw = torch.Generator().manual_seed(0)
    sizes = torch.randint(20, 200, (400,), generator=draw).double()
    costs = sizes * (0.7 + 0.1 * torch.randn(400, generator=draw))
    pairs = [(-float(cost), float(size)) for cost, size in zip(costs, sizes, strict=True)]
    resampled = []
    for _ in range(400):
        rows = torch.randint(0, 400, (400,), generator=draw).tolist()
        resampled.append(bits_per_byte([pairs[row] for row in rows]))
    assert standard_error("bits_per_byte", pairs, bits_per_byte) == pytest.approx(statistics.stdev(resampled), rel=0.15)
    texts = [(f"the cat number {n} sat down", f"the cat {n} sat {'up' if n % 3 else 'down'}") for n in range(60)]
    assert 0.1 < standard_error("chrf++", texts, None) < 5
    assert standard_error("chrf", [("abc", ""), ("def", "")], None) == 0
    assert standard_error("f1", [(n % 2, n % 3 == 0) for n in range(60)], f1_score) > 0


# as lm_eval has it

OWN = """
task: mine_th
dataset_path: json
dataset_kwargs: {data_files: {train: FILE, test: FILE}}
training_split: train
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "{{ q }} ="
doc_to_choice: "{{ choices }}"
doc_to_target: "{{ right }}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 2}
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder of a user's tasks: one YAML, and questions as JSONL."""
    folder = tmp_path_factory.mktemp("own")
    rows = [{"q": f"{n} + {n}", "choices": [f"{2 * n}", "ห้า", f"{n} {n}"], "right": n % 3} for n in range(6)]
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    (folder / "mine.yaml").write_text(OWN.replace("FILE", str(folder / "rows.jsonl")), encoding="utf-8")
    (folder / "again.yaml").write_text("include: mine.yaml\ntask: mine_ind_Latn\n", encoding="utf-8")
    return folder


WRITTEN = """
task: written_th
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: generate_until
doc_to_text: "{{ q }} ="
doc_to_target: "{{ choices[0] }}"
generation_kwargs: {max_gen_toks: 2}
filter_list:
  - {name: strict, filter: [{function: take_first}]}
  - {name: none, filter: [{function: take_first}]}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
  - {metric: ter, aggregation: ter, higher_is_better: false}
"""


def test_the_direction_of_a_metric_that_only_its_task_knows(model, tokenizer, own, tmp_path):
    text = WRITTEN.replace("FILE", str(own / "rows.jsonl"))
    (tmp_path / "written.yaml").write_text(text, encoding="utf-8")
    questions = choose_tasks(["written_th"], None, Options(include_path=(tmp_path,), limit=2))
    _, _, about = put(questions, model, tokenizer, [0])
    assert about["better"] == {"ter": -1, "ter,strict": -1}
    known = put(choose_tasks(["mine_th"], None, Options(include_path=(own,), limit=1)), model, tokenizer, [0])
    assert "better" not in known[2]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("shots", [0, 2])
def test_the_numbers_of_lm_eval_itself(model, tokenizer, own, chat, shots):
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    loaded = TaskManager(include_defaults=False).load([str(own / "mine.yaml")])
    loaded["tasks"]["mine_th"].set_config(key="num_fewshot", value=shots)
    loaded["tasks"]["mine_th"].set_fewshot_seed(seed=7)
    theirs = evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2),
        loaded,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        bootstrap_iters=10,
    )
    questions = choose_tasks([str(own / "mine.yaml")], None, Options(num_fewshot=shots, apply_chat_template=chat))
    runs, lines, _ = put(questions, model, tokenizer, [7])
    leaf = runs[0].scores["by_language_and_task"]["th"]["mine"]
    their = theirs["results"]["mine_th"]
    assert leaf["acc"] == their["acc,none"] and leaf["acc_norm"] == their["acc_norm,none"]
    assert leaf["stderr"]["acc"] == pytest.approx(their["acc_stderr,none"])
    for line, sample in zip(lines, theirs["samples"]["mine_th"], strict=True):
        assert line["log_likelihoods"] == pytest.approx([resp[0] for resp in sample["filtered_resps"]], abs=2e-3)
    again, _, _ = put(questions, model, tokenizer, [7])
    assert again == runs


def test_examples_are_drawn_by_the_seed(model, tokenizer, own):
    questions = choose_tasks([str(own / "mine.yaml")], None, Options(num_fewshot=2))
    questions.check_seeds([0, 1, 2])
    _, lines, _ = put(questions, model, tokenizer, [0, 1])
    by_seed = [[line["log_likelihoods"] for line in lines if line["seed"] == seed] for seed in (0, 1)]
    assert len(by_seed[0]) == 6 and by_seed[0] != by_seed[1]
    assert questions.benchmark["decoding"]["num_fewshot"] == 2
    with pytest.raises(ConfigError, match="2 seeds would give 2 times the same"):
        choose_tasks([str(own / "mine.yaml")], None, Options()).check_seeds([0, 1])


def test_limit_chat_and_system_turn_change_what_is_asked(model, tokenizer, own):
    def asked(**options):
        questions = choose_tasks([str(own / "mine.yaml")], None, Options(**options))
        _, lines, about = put(questions, model, tokenizer, [0])
        prompts.append((about["tasks"]["mine_th"]["first_prompt"], lines[0]["question"]))
        return questions.benchmark, [line["log_likelihoods"] for line in lines]

    prompts = []

    plain, costs = asked()
    few, fewer = asked(limit=2)
    share, third = asked(limit=0.34)
    assert (few["questions"], share["questions"]) == (2, 3) and fewer == costs[:2] and third == costs[:3]
    assert few["fingerprint"] != plain["fingerprint"]
    chat, in_turns = asked(apply_chat_template=True)
    assert chat["fingerprint"] == plain["fingerprint"] and chat["decoding"] != plain["decoding"] and in_turns != costs
    _, instructed = asked(apply_chat_template=True, system_instruction="ตอบสั้น ๆ")
    assert instructed != in_turns
    asked(num_fewshot=1, limit=1)
    (bare, question), (chatted, own_words), (shown, last) = prompts[0], prompts[-2], prompts[-1]
    assert bare == question == own_words == last
    assert question in chatted and "ตอบสั้น ๆ" in chatted and "<|im_start|>" in chatted
    assert shown.endswith(f"\n\n{question}") and shown != question


def test_what_is_generated_in_one_evaluation_has_no_say_in_the_next(sets):
    def kwargs(**given):
        ((_, task),) = choose_tasks(["dudi_ntrex_to_en_th"], None, Options(data=sets, gen_kwargs=given)).tasks.values()
        return task.get_config("generation_kwargs")

    own = dict(kwargs())
    assert kwargs(do_sample=True)["do_sample"] is True
    assert kwargs() == own


def test_a_template_that_is_not_there(model, own):
    bare = make_tokenizer(template=None)
    questions = choose_tasks([str(own / "mine.yaml")], None, Options(apply_chat_template=True))
    with pytest.raises(ConfigError, match="--apply-chat-template: the tokenizer has no chat template"):
        put(questions, model, bare, [0])
    put(choose_tasks([str(own / "mine.yaml")], None, Options()), model, bare, [0])  # without one none is needed


# tokenizers


def loaded(model, tokenizer):
    from dudi.evaluation.harness.model import LoadedModel

    return LoadedModel(model, tokenizer, stop_ids=[0], batch_size=2, template_kwargs={}, done=lambda count: None)


def request(kind, *arguments):
    from lm_eval.api.instance import Instance

    return Instance(kind, {}, arguments, 0)


def test_a_choice_that_a_tokenizer_would_merge_with_its_context(model, tokenizer):
    """A Thai word cut in two: cut at the context's length, its tokens would be neither the one part nor the other."""
    word = "กรุงเทพมหานคร"
    lm = loaded(model, tokenizer)
    cuts = [(word[:cut], word[cut:]) for cut in range(1, len(word))]
    merged = [pair for pair in cuts if lm.tok_encode(word)[: len(lm.tok_encode(pair[0]))] != lm.tok_encode(pair[0])]
    assert merged
    for before, after in cuts:
        ids = lm._encode_pair(before, after)
        assert tokenizer.decode(ids[0]) == before and tokenizer.decode(ids[1]) == after
    with lm.opened():
        ((found, _),) = lm.loglikelihood([request("loglikelihood", *merged[0])])
    assert -found == pytest.approx(nats(model, tokenizer, *merged[0]), abs=1e-3)


def test_a_beginning_of_text_is_counted_for_nothing(model):
    """Tokenizers such as Gemma's put it in front of every text by themselves."""
    tokenizer = make_tokenizer(template=CHATML)
    tokenizer.bos_token = "<|im_start|>"
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", bos)]
    )
    assert tokenizer("a")["input_ids"][0] == bos
    lm = loaded(model, tokenizer)
    with lm.opened():
        (found,) = lm.loglikelihood_rolling([request("loglikelihood_rolling", NEWS["en"][0])])
    assert -found == pytest.approx(nats(model, make_tokenizer(), "<|im_start|>", NEWS["en"][0]), rel=1e-5)


def test_texts_longer_than_the_model_are_read_in_windows(tokenizer):
    short = make_model("qwen2", seed=3, max_position_embeddings=16).eval()
    text = " ".join(NEWS["en"] * 3)
    ids = tokenizer(text)["input_ids"]
    lm = loaded(short, tokenizer)
    with lm.opened():
        (found,) = lm.loglikelihood_rolling([request("loglikelihood_rolling", text)])
        ((cut, _),) = lm.loglikelihood([request("loglikelihood", text, " ok")])
    assert lm.max_length == 16 and len(ids) > 32 and math.isfinite(found) and math.isfinite(cut)
    with torch.no_grad():
        first = short(input_ids=torch.tensor([[tokenizer.eos_token_id, *ids[:15]]])).logits[0].double().log_softmax(-1)
    assert found < float(first.gather(-1, torch.tensor(ids[:16])[:, None]).sum())  # the others cost too


def test_a_models_own_sampling_has_no_say(tokenizer):
    wild = make_model("qwen2", seed=3).eval()
    wild.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=3.0, eos_token_id=None)
    calm = make_model("qwen2", seed=3).eval()
    answers = []
    for one in (wild, calm):
        lm = loaded(one, tokenizer)
        with lm.opened():
            answers.append(lm.generate_until([request("generate_until", "Apa", {"until": ["\n"], "max_gen_toks": 8})]))
    assert answers[0] == answers[1] and wild.generation_config.repetition_penalty == 3.0


# names


@pytest.mark.parametrize(
    ("name", "language", "family"),
    [
        ("belebele_tha_Thai", "th", "belebele"),
        ("xcopa_id", "id", "xcopa"),
        ("dudi_ntrex_from_en_my", "my", "dudi_ntrex_from_en"),
        ("mmlu_prox_th_biology", "th", "mmlu_prox_biology"),
        ("include_base_44_indonesian", "id", "include_base_44"),
        ("global_piqa_parallel_cloze_tha_thai", "th", "global_piqa_parallel_cloze"),
        ("hellaswag", "", "hellaswag"),
        ("id", "", "id"),
    ],
)
def test_the_language_in_a_name(name, language, family):
    assert language_of(name) == (language, family)


def test_names_are_completed_by_the_languages(own):
    assert suffixes("th") == ["th", "tha_thai", "tha", "thai"]
    found, missing = named_tasks(["mine"], ["th", "id", "my"], [own])
    assert [(one.name, one.language, one.family) for one in found] == [
        ("mine_th", "th", "mine"),
        ("mine_ind_Latn", "id", "mine"),
    ]
    assert missing == ["mine: no task in my"]
    found, notes = named_tasks(["mine_*", "xcopa", "dudi_nusax_id"], ["th"], [own])
    assert [one.name for one in found] == ["mine_th", "dudi_xcopa_th", "dudi_nusax_id"]
    assert notes[0] == "mine_*: not asked, in other languages: mine_ind_Latn"


def test_languages_choose_among_the_tasks_of_groups_and_tags(tmp_path):
    for name in ("x_th", "x_id", "x_et", "x_fra_Latn", "x_held_out"):
        text = (
            f'task: {name}\ntag: tagged\ndataset_path: json\ndoc_to_text: "{{{{ q }}}}"\ndoc_to_target: "{{{{ a }}}}"\n'
        )
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    members = "".join(f"\n  - {name}" for name in ("x_th", "x_id", "x_et", "x_fra_Latn", "x_held_out"))
    (tmp_path / "group.yaml").write_text(f"group: grouped\ntask:{members}\n", encoding="utf-8")
    for word in ("tagged", "grouped", "x_*"):
        named, notes = named_tasks([word], ["th"], [tmp_path])
        assert {one.name for one in named} == {"x_th", "x_held_out"}
        assert notes[0].startswith(f"{word}: not asked, in other languages: ") and "x_et" in notes[0]
        assert notes[1] == f"{word}: asked, and nobody knows in which language: x_held_out"
        assert named_tasks([word], None, [tmp_path])[1] == []
    assert [one.name for one in named_tasks(["x_id"], ["th"], [tmp_path])[0]] == ["x_id"]
    with pytest.raises(ConfigError, match="not asked, in other languages"):
        choose_tasks(["x_i*"], ["th"], Options(include_path=(tmp_path,)))


def test_a_task_that_fixes_its_examples_is_told(own, tmp_path):
    fixed = f"include: {own / 'mine.yaml'}\ntask: fixed_th\nnum_fewshot: 0\n"
    (tmp_path / "fixed.yaml").write_text(fixed, encoding="utf-8")
    options = Options(include_path=(tmp_path,), num_fewshot=3)
    (note,) = choose_tasks(["fixed_th"], None, options).notes
    assert note == "without examples, as the task has it, whatever --num-fewshot says: fixed_th"
    assert choose_tasks(["fixed_th"], None, dataclasses.replace(options, num_fewshot=None)).notes == []


def test_two_wordings_of_one_set_are_two_tasks():
    ours = [Named(f"dudi_xcopa_{code}", code, "xcopa", shipped_tasks()[0]) for code in ("id", "th")]
    theirs = [Named("xcopa_id", "id", "xcopa"), Named("xcopa_vi", "vi", "xcopa"), Named("arc_ind", "id", "arc")]
    found, notes = told_apart([*theirs, *ours, Named("arc_id", "id", "arc"), Named("arc_th", "th", "arc")])
    families = ["xcopa_id", "xcopa_vi", "arc_ind", "xcopa", "xcopa", "arc_id", "arc"]
    assert [one.family for one in found] == families
    assert len({(one.family, one.language) for one in found}) == len(found)
    assert notes[0] == "xcopa_id: a task of its own, since another is called xcopa" and len(notes) == 4
    assert told_apart(ours) == (ours, [])


def test_a_users_folder_is_asked_by_name(model, tokenizer, own):
    questions = choose_tasks(["mine"], ["id", "th"], Options(include_path=(own,), limit=1))
    runs, lines, _ = put(questions, model, tokenizer, [0])
    assert set(runs[0].scores["by_language"]) == {"id", "th"} and len(lines) == 2


@pytest.mark.slow  # lm_eval reads its 14,000 tasks
def test_names_of_lm_evals_own_tasks():
    found, _ = named_tasks(["belebele_tha_Thai", "xstorycloze", "xcopa_vi"], ["id", "my", "th"])
    assert [(one.name, one.language) for one in found] == [
        ("belebele_tha_Thai", "th"),
        ("xstorycloze_id", "id"),
        ("xstorycloze_my", "my"),
        ("xcopa_vi", "vi"),
    ]
    with pytest.raises(ConfigError, match=r"there is no 'beleble' .did you mean 'belebele'"):
        named_tasks(["beleble"], None)


# what is refused


def test_what_is_refused(sets, tmp_path, own):
    with pytest.raises(ConfigError, match="name what is asked: --tasks"):
        choose_tasks(None, None, Options())
    with pytest.raises(ConfigError, match="--limit must be above 0"):
        Options(limit=0)
    with pytest.raises(ConfigError, match="--num-fewshot must not be negative"):
        Options(num_fewshot=-1)
    with pytest.raises(ConfigError, match=r"--data .*nowhere: no such folder"):
        Options(data=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"--include-path .*nowhere: no such folder"):
        choose_tasks(["mine"], None, Options(include_path=(tmp_path / "nowhere",)))
    with pytest.raises(ConfigError, match=r"has no split 'dev' to take examples from; leave out --num-fewshot"):
        write_parquet(tmp_path / "global_mmlu_lite.parquet", [{"lang": "id", "split": "test", "row": 0}])
        choose_tasks(["global_mmlu_lite"], ["id"], Options(data=tmp_path, num_fewshot=1))
    with pytest.raises(ConfigError, match=r"dudi_xcopa_tl: its set is on no hub; --data DIR reads xcopa.parquet"):
        choose_tasks(["xcopa"], ["tl"], Options())
    with pytest.raises(ConfigError, match="no such task file"):
        choose_tasks([str(own / "no.yaml")], None, Options())
    with pytest.raises(ConfigError, match="no task in my; there is"):
        choose_tasks(["xcopa"], ["my"], Options(data=sets))
    with pytest.raises((ConfigError, EnvironmentFault), match="sib200"):
        choose_tasks(["sib200"], ["th"], Options())  # the hub cannot be reached from a test


def test_a_doc_that_breaks_a_template_names_the_task(tmp_path, own):
    (tmp_path / "bad.yaml").write_text(
        (own / "mine.yaml").read_text().replace("{{ q }}", "{{ question }}"), encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=r"bad.yaml: a template fails: 'question' is undefined"):
        choose_tasks([str(tmp_path / "bad.yaml")], None, Options())


def test_a_limit_spreads_over_a_shipped_set_that_is_sorted_by_its_labels(model, tokenizer, tmp_path):
    labels = [label for label in ("geography", "health", "politics", "sports") for _ in range(5)]
    rows = [
        {"lang": "en", "split": split, "row": number, "text": f"Text {number}.", "label": label}
        for split in ("train", "dev", "test")
        for number, label in enumerate(labels)
    ]
    write_parquet(tmp_path / "sib200.parquet", rows)
    questions = choose_tasks(["sib200"], ["en"], Options(data=tmp_path, limit=4))
    _, lines, _ = put(questions, model, tokenizer, [0])
    assert [line["id"].rpartition("/")[2] for line in lines] == ["0", "5", "10", "15"]
    assert len({line["reference"] for line in lines}) == 4
    whole = choose_tasks(["sib200"], ["en"], Options(data=tmp_path, limit=50))
    assert whole.total == 20 and whole.benchmark["fingerprint"] != questions.benchmark["fingerprint"]


def test_a_file_in_another_language_is_left_out_and_one_of_none_is_asked(tmp_path):
    for name in ("x_th", "x_id", "held_out"):
        text = f'task: {name}\ndataset_path: json\ndoc_to_text: "{{{{ q }}}}"\ndoc_to_target: "{{{{ a }}}}"\n'
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    files = [str(tmp_path / f"{name}.yaml") for name in ("x_th", "x_id", "held_out")]
    for words in (files, [str(tmp_path)]):
        named, _ = named_tasks(words, ["th"])
        assert {one.name: one.language for one in named} == {"x_th": "th", "held_out": ""}


# groups

GROUPED = """
group: both
task:
  - mine_th
  - mine_ind_Latn
  - {group: inner, task: [few_en], aggregate_metric_list: [{metric: acc_norm, weight_by_size: true}]}
aggregate_metric_list:
  - {metric: acc, aggregation: mean, weight_by_size: WEIGHTED}
  - {metric: acc_norm, aggregation: mean, weight_by_size: true}
metadata: {version: 1}
"""


@pytest.fixture
def grouped(own, tmp_path):
    """A folder with a group of three tasks of two sizes, by WEIGHTED."""

    def written(weighted):
        for file in own.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        few = [{"q": f"{n}", "choices": ["a", "b"], "right": n % 2} for n in range(3)]
        lines = "".join(json.dumps(row) + "\n" for row in few)
        (tmp_path / "few.jsonl").write_text(lines, encoding="utf-8")
        text = OWN.replace("FILE", str(tmp_path / "few.jsonl")).replace("mine_th", "few_en")
        (tmp_path / "few.yaml").write_text(text, encoding="utf-8")
        (tmp_path / "group.yaml").write_text(GROUPED.replace("WEIGHTED", weighted), encoding="utf-8")
        return tmp_path

    return written


@pytest.mark.parametrize("weighted", ["true", "false"])
def test_the_score_of_a_group_is_that_of_lm_eval_itself(model, tokenizer, grouped, weighted):
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folder = grouped(weighted)
    theirs = simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2),
        tasks=["both"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=10,
    )["groups"]
    for words, options in ((["both"], Options(include_path=(folder,))), ([str(folder / "group.yaml")], Options())):
        runs, _, _ = put(choose_tasks(words, None, options), model, tokenizer, [0])
        by_group = runs[0].scores["by_group"]
        assert set(by_group) == set(theirs) == {"both", "both::inner"}
        for name, leaf in by_group.items():
            for metric in set(leaf) - {"questions", "stderr"}:
                assert leaf[metric] == pytest.approx(theirs[name][f"{metric},none"])
                assert leaf["stderr"][metric] == pytest.approx(theirs[name][f"{metric}_stderr,none"])
        assert by_group["both"]["questions"] == 15 and set(by_group["both"]) == {
            "questions",
            "acc",
            "acc_norm",
            "stderr",
        }
    tasks = [leaf["acc"] for own in runs[0].scores["by_language_and_task"].values() for leaf in own.values()]
    if weighted == "false":
        assert by_group["both"]["acc"] == pytest.approx(statistics.fmean(tasks))


def test_a_group_of_which_languages_leave_tasks_out_has_no_score(grouped, model, tokenizer):
    folder = grouped("true")
    text = "group: two\ntask: [mine_th, mine_ind_Latn]\naggregate_metric_list: [{metric: acc}]\n"
    (folder / "two.yaml").write_text(text, encoding="utf-8")

    def asked(word, languages):
        questions = choose_tasks([word], languages, Options(include_path=(folder,), limit=1))
        return questions.notes, put(questions, model, tokenizer, [0])[0][0].scores

    notes, scores = asked("two", ["th"])
    assert "two: without its own score, which is one of all its tasks" in notes and "by_group" not in scores
    notes, scores = asked("two", ["th", "id"])
    assert notes == [] and set(scores["by_group"]) == {"two"}
    assert "by_group" not in asked("mine_th", ["th"])[1]


def test_a_pattern_of_files_takes_a_group_and_its_tasks_once(grouped, model, tokenizer):
    folder = grouped("true")
    questions = choose_tasks([str(folder / "[fg]*.yaml")], None, Options(limit=1))
    assert list(questions.tasks) == ["few_en", "mine_th", "mine_ind_Latn"]
    assert "both" in put(questions, model, tokenizer, [0])[0][0].scores["by_group"]
    with pytest.raises(ConfigError, match="no such task file"):
        choose_tasks([str(folder / "z*.yaml")], None, Options())


def test_a_task_that_two_groups_ask_in_two_ways_is_asked_in_neither(grouped):
    folder = grouped("true")
    (folder / "same.yaml").write_text("group: same\ntask: [few_en]\n", encoding="utf-8")
    other = "group: other\ntask: [{task: few_en, num_fewshot: 1}]\n"
    (folder / "other.yaml").write_text(other, encoding="utf-8")
    options = Options(include_path=(folder,))
    assert list(choose_tasks(["both", "same"], None, options).tasks) == ["mine_th", "mine_ind_Latn", "few_en"]
    with pytest.raises(ConfigError, match="few_en is asked in two ways, one of them in other; ask one at a time"):
        choose_tasks(["same", "other"], None, options)


def test_a_group_of_shipped_tasks_and_of_ones_with_local_data(grouped, sets, model, tokenizer):
    folder = grouped("true")
    local = (
        "metadata: {data: {file: sib200.parquet, lang: th}, language: th}\ndataset_path: none/none\ntest_split: test\n"
    )
    text = (
        local + 'task: lengths\noutput_type: loglikelihood\ndoc_to_text: "{{ text }}"\ndoc_to_target: "{{ label }}"\n'
    )
    metrics = "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    (folder / "lengths.yaml").write_text(text + metrics, encoding="utf-8")
    mixed = "group: mixed\ntask: [dudi_sib200_th, lengths, both]\naggregate_metric_list: [{metric: acc}]\n"
    (folder / "mixed.yaml").write_text(mixed, encoding="utf-8")
    options = Options(include_path=(folder,), data=sets)
    questions = choose_tasks(["mixed"], None, options)
    families = {name: (one.family, one.language) for name, (one, _) in questions.tasks.items()}
    assert families["dudi_sib200_th"] == ("sib200", "th") and families["lengths"] == ("lengths", "th")
    assert len(families) == 5
    scores = put(questions, model, tokenizer, [0])[0][0].scores
    assert set(scores["by_group"]) == {"mixed", "both", "both::inner"}
    cells = scores["by_language_and_task"]
    parts = [leaf for own in cells.values() for leaf in own.values()]
    total = sum(leaf["acc"] * leaf["questions"] for leaf in parts)
    whole = scores["by_group"]["mixed"]
    assert whole["questions"] == sum(leaf["questions"] for leaf in parts)
    assert whole["acc"] == pytest.approx(total / whole["questions"])
    alone = choose_tasks(["lengths"], None, options)
    assert list(alone.tasks) == ["lengths"] and alone.total == 2


@pytest.mark.slow  # lm_eval reads its 14,000 tasks
def test_a_group_with_a_task_that_nobody_knows(tmp_path):
    (tmp_path / "bad.yaml").write_text("group: bad\ntask: [dudi_sib200_xx]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad: there is no task 'dudi_sib200_xx' .did you mean 'dudi_sib200_"):
        choose_tasks(["bad"], None, Options(include_path=(tmp_path,)))
