"""Task files: the shipped ones, those of a user, and the documents that they are filled with."""

import subprocess
import sys
from pathlib import Path

import pytest

from dudi.data.task_data import documents, has_split, local_data
from dudi.data.task_files import Prompts, TaskFile, find_tasks, read_task, shipped_tasks
from dudi.data.task_rows import prepare_task
from dudi.errors import ConfigError, DataError
from dudi.languages.registry import BUILT_IN, LANGUAGES
from dudi.languages.translation import translation_prompt
from task_sets import NEWS, SIB, write_parquet, write_sets

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parents[1] / "shared" / "data"
SHIPPED = shipped_tasks()


def one(word, language):
    (task,) = find_tasks(word, [language])
    return task


def values(task, split, folder=None):
    return [located.value for located in documents(task, split, folder)]


def test_the_files_are_what_the_script_makes():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "task_files.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_set_in_its_languages():
    families = {}
    for task in SHIPPED:
        families.setdefault(task.family, []).append(task.language)
    every, translated = set(BUILT_IN), set(BUILT_IN) - {"en"}
    assert {name: set(codes) for name, codes in families.items()} == {
        "sib200": every,
        "belebele": every,
        "ntrex_bits": every,
        **dict.fromkeys(("ntrex_bits_from_en", "ntrex_bits_to_en", "ntrex_from_en", "ntrex_to_en"), translated),
        "xcopa": {"id", "vi", "th", "ta", "tl"},
        "global_mmlu_lite": {"en", "id", "vi", "tl", "ms", "my"},
        "nusax": {"id", "en"},
        "indonli": {"id"},
        "xnli": {"vi", "th", "ta", "tl", "my", "en"},
    }


@pytest.mark.parametrize("task", SHIPPED, ids=lambda task: task.name)
def test_a_prompt_is_worded_in_its_language(task):
    """Letters of the wording, templates taken out, are of the script of the language that speaks."""
    speaker = "en" if "from_en" in task.name else task.language
    script = LANGUAGES[speaker].script.upper()
    wording = task.config["doc_to_text"].partition("{{")[0] or task.config["doc_to_text"].rpartition("}}")[2]
    letters = [char for char in wording if char.isalpha() and not char.isascii()]
    if script != "LATIN" and task.config["doc_to_text"]:
        import unicodedata

        assert letters or "xcopa" in task.name
        assert all(unicodedata.name(char).startswith(script) for char in letters)


@pytest.mark.parametrize(
    "task", [task for task in SHIPPED if "doc_to_choice" in task.config], ids=lambda task: task.name
)
def test_no_choice_twice(task):
    choices = task.config["doc_to_choice"]
    assert isinstance(choices, str) or len(set(choices)) == len(choices)


def test_a_local_file_has_the_columns_of_the_hub(tmp_path):
    folder = write_sets(tmp_path)
    (first, *_) = values(one("sib200", "th"), "train", folder)
    text, label = SIB["th"]["train"][0]
    assert first["text"] == text and first["category"] == label and "label" not in first
    (passage,) = values(one("belebele", "en"), "test", folder)
    assert passage["flores_passage"].startswith("News:") and passage["mc_answer3"] == "a moon"
    both = values(one("ntrex_from_en", "th"), "test", folder)
    assert [(doc["eng_Latn"], doc["tha_Thai"]) for doc in both] == list(zip(NEWS["en"], NEWS["th"], strict=True))


def test_a_text_without_its_parallel_is_left_out(tmp_path):
    rows = [{"lang": "th", "split": "test", "row": n, "text": f"ก{n}"} for n in range(3)]
    rows.append({"lang": "en", "split": "test", "row": 1, "text": "one"})
    write_parquet(tmp_path / "ntrex128.parquet", rows)
    (doc,) = values(one("ntrex_to_en", "th"), "test", tmp_path)
    assert (doc["row"], doc["eng_Latn"], doc["tha_Thai"]) == (1, "one", "ก1")


def test_prompts_and_completions(tmp_path):
    folder = write_sets(tmp_path)

    def made(word, language, split="test"):
        task = one(word, language)
        doc = values(task, split, folder)[0]
        return Prompts(task).prompt(doc), Prompts(task).completion(doc)

    prompt, completion = made("sib200", "th", "train")
    assert SIB["th"]["train"][0][0] in prompt and prompt.endswith("หัวข้อ:") and completion == "วิทยาศาสตร์/เทคโนโลยี"
    prompt, completion = made("belebele", "en")
    assert "\nC. a moon\nD. a comet\nAnswer (A, B, C or D):" in prompt and completion == "C"
    prompt, completion = made("ntrex_to_en", "th")
    assert prompt == translation_prompt(NEWS["th"][0], "th", "en") and completion == NEWS["en"][0]


@pytest.mark.parametrize(
    ("word", "language", "document", "prompt", "completion"),
    [
        (
            "belebele",
            "en",
            {
                "flores_passage": "P.",
                "question": "Q?",
                **{f"mc_answer{n}": f"answer {n}" for n in (1, 2, 3, 4)},
                "correct_answer_num": "2",
            },
            "B. answer 2",
            "B",
        ),
        (
            "global_mmlu_lite",
            "id",
            {"question": "Q?", **{f"option_{letter}": letter for letter in "abcd"}, "answer": "D"},
            "Jawaban (A, B, C, atau D):",
            "D",
        ),
        (
            "xcopa",
            "id",
            {"premise": "Dia lari.", "choice1": "Ada api.", "choice2": "Hari cerah.", "question": "cause", "label": 0},
            "Dia lari karena",
            "ada api.",
        ),
        (
            "xcopa",
            "th",
            {"premise": "เขาวิ่ง", "choice1": "ก", "choice2": "ข", "question": "effect", "label": 1},
            "เขาวิ่ง ดังนั้น",
            "ข",
        ),
        ("nusax", "id", {"text": "Enak!", "label": 2}, "Enak!", "positif"),
        ("xnli", "vi", {"premise": "A", "hypothesis": "B", "label": 2}, "Nhận định: B", "sai"),
        ("xnli", "my", {"premise": "A", "hypothesis": "B", "label": "neutral"}, "ဖော်ပြချက်: B", "အတိအကျ မပြောနိုင်ပါ"),
        ("sib200", "ta", {"text": "x", "category": "travel"}, "உரை: x", "பயணம்"),
        ("ntrex_from_en", "my", {"eng_Latn": "Hello", "mya_Mymr": "မင်္ဂလာပါ"}, "Burmese:", "မင်္ဂလာပါ"),
    ],
)
def test_the_hubs_own_columns(word, language, document, prompt, completion):
    prompts = Prompts(one(word, language))
    assert prompt in prompts.prompt(document) and prompts.completion(document) == completion


def test_lm_eval_renders_the_same(tmp_path):
    """Our reader and lm_eval's own, on every shipped task with the sets that the test made."""
    pytest.importorskip("lm_eval")
    from lm_eval.tasks._yaml_loader import load_yaml
    from lm_eval.utils import apply_template

    folder = write_sets(tmp_path)
    for task in (one(word, "th") for word in ("sib200", "belebele", "ntrex_from_en", "ntrex_bits")):
        config = load_yaml(task.path)
        assert {key: config[key] for key in config if key != "include"} == dict(task.config)
        (doc, *_) = values(task, "test", folder)
        if config["doc_to_text"]:
            assert apply_template(config["doc_to_text"], doc) == Prompts(task).prompt(doc)


def test_names_of_a_set_and_of_a_task(tmp_path):
    assert [task.language for task in find_tasks("sib200", ["th", "my"])] == ["my", "th"]
    assert [task.name for task in find_tasks("dudi_xcopa_id")] == ["dudi_xcopa_id"]
    with pytest.raises(ConfigError, match=r"sib20: .*did you mean 'sib200'"):
        find_tasks("sib20")
    with pytest.raises(ConfigError, match="no task in my; there is id, ta, th, tl, vi"):
        find_tasks("xcopa", ["my"])


# A user's own files

OWN = """
include: _base
task: mine_th
dataset_path: json
dataset_kwargs: {data_files: {train: FILE}}
doc_to_target: "{{ answer }}"
process_results: !function mine.score
"""


@pytest.fixture
def own(tmp_path):
    """A task of a user's own that includes a base and reads JSONL."""
    (tmp_path / "rows.jsonl").write_text('{"q": "หนึ่งบวกหนึ่ง", "answer": "สอง"}\n', encoding="utf-8")
    (tmp_path / "_base").write_text(
        'training_split: train\ndoc_to_text: "{{ q }} = "\ndoc_to_target: x\n', encoding="utf-8"
    )
    path = tmp_path / "mine.yaml"
    path.write_text(OWN.replace("FILE", str(tmp_path / "rows.jsonl")), encoding="utf-8")
    return path


def test_a_task_of_a_users_own(own):
    task = read_task(own)
    assert (task.name, task.language, task.split("train")) == ("mine_th", "th", "train")
    (doc,) = values(task, "train")
    prompts = Prompts(task)  # that `process_results` is a function is no matter here
    assert (prompts.prompt(doc), prompts.completion(doc)) == ("หนึ่งบวกหนึ่ง = ", "สอง")
    assert [found.name for found in find_tasks(str(own.parent))] == ["mine_th"]


def test_functions_are_named_and_not_run(own):
    own.write_text(own.read_text() + "doc_to_text: !function os.getcwd\n")
    with pytest.raises(ConfigError, match=r"mine.yaml: doc_to_text is the function os.getcwd, and no code"):
        Prompts(read_task(own))


def test_templates_cannot_reach_python(own):
    own.write_text(own.read_text() + 'doc_to_text: "{{ q.__class__.__mro__ }}"\n')
    with pytest.raises(DataError, match="doc_to_text cannot be made"):
        Prompts(read_task(own)).prompt({"q": "x"})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("task: [a\n", r"broken.yaml:2: is not valid YAML"),
        ("- a\n", "is not a mapping"),
        ("task: [a, b]\n", "names no task"),
        ("include: broken.yaml\ntask: a\n", "includes itself"),
        ("include: nowhere\ntask: a\n", "nowhere: cannot be read"),
    ],
)
def test_broken_files(tmp_path, content, words):
    (tmp_path / "broken.yaml").write_text(content)
    with pytest.raises(ConfigError, match=words):
        read_task(tmp_path / "broken.yaml")


def test_missing_columns_splits_and_files(tmp_path):
    folder = write_sets(tmp_path)
    with pytest.raises(DataError, match=r"doc_to_text cannot be made of x: 'text' is undefined"):
        Prompts(one("sib200", "th")).prompt({"x": 1})
    with pytest.raises(ConfigError, match="has no training_split; it has test"):
        one("belebele", "th").split("train")
    with pytest.raises(ConfigError, match="no rows in 'my' of the split 'train'"):
        values(one("sib200", "my"), "train", folder)
    with pytest.raises(ConfigError, match=r"xcopa.parquet: no such file"):
        values(one("xcopa", "th"), "test", folder)
    with pytest.raises(ConfigError, match=r"no such file or folder.*--data DIR reads xcopa.parquet"):
        values(one("xcopa", "tl"), "test")
    bad = TaskFile(Path("t.yaml"), "t", {"metadata": {"data": {"file": "a", "lang": "th", "colums": {}}}})
    with pytest.raises(ConfigError, match=r"unknown key 'colums' .did you mean 'columns'"):
        local_data(bad)
    write_parquet(folder / "sib200.parquet", [{"text": "x"}])
    with pytest.raises(DataError, match="has no column lang, row, split; it has text"):
        values(one("sib200", "th"), "train", folder)


def test_a_file_of_one_language_with_the_hubs_columns_comes_first(tmp_path):
    folder = write_sets(tmp_path)
    task = one("sib200", "th")
    assert not has_split(local_data(task), "mine", folder)
    write_parquet(folder / "sib200.th.mine.parquet", [{"index_id": 7, "category": "travel", "text": "ไปเที่ยว"}])
    assert has_split(local_data(task), "mine", folder)
    (doc,) = values(task, "mine", folder)
    assert Prompts(task).completion(doc) == "การท่องเที่ยว"


def test_the_real_sets_fill_every_template():
    if not SHARED.is_dir():
        pytest.skip("no folder of real data beside the checkout")
    for task in SHIPPED:
        doc = next(documents(task, task.split("test"), SHARED)).value
        assert Prompts(task).completion(doc) if task.config["doc_to_text"] else doc


@pytest.mark.parametrize(
    ("name", "language", "family"),
    [
        ("mytask_th", "th", "mytask"),
        ("mytask_km", "", "mytask_km"),  # known once `DUDI_LANGUAGES_DIR` brings it
        ("yes_no", "", "yes_no"),
        ("held_out", "", "held_out"),  # ends with a word
        ("gsm8k_cot", "", "gsm8k_cot"),
        ("questions", "", "questions"),
        ("dudi_sib200_th", "th", "sib200"),
    ],
)
def test_a_name_ends_with_a_language_or_tells_none(tmp_path, name, language, family):
    task = TaskFile(tmp_path / "task.yaml", name, {})
    assert (task.language, task.family) == (language, family)


def test_rows_are_made_of_tasks_that_say_their_language(tmp_path):
    file = tmp_path / "held_out.yaml"
    file.write_text('task: held_out\ndoc_to_text: "{{ q }}"\ndoc_to_target: "{{ a }}"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"held_out\.yaml: says no language"):
        prepare_task(str(file), tmp_path / "rows.jsonl")
