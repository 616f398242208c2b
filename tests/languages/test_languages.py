"""Languages: the eight built in, broken files, and a language added by one file."""

import pickle
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from dudi.distill.verbalizer import Verbalizer
from dudi.errors import ConfigError
from dudi.languages import registry
from dudi.languages.registry import BUILT_IN, LANGUAGES, LANGUAGES_DIR_VARIABLE, language_name, load_languages

GUIDE = Path(__file__).parents[2] / "docs" / "verbalizer.md"
JAVANESE = GUIDE.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
"""The worked example of the guide: what it tells people to write is what is tested."""


def write(folder: Path, text: str = JAVANESE, name: str = "jv.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_the_eight_in_order():
    assert tuple(LANGUAGES) == BUILT_IN == ("id", "vi", "th", "ta", "tl", "ms", "my", "en")
    assert [LANGUAGES[code].script for code in BUILT_IN] == [
        *("Latin", "Latin", "Thai", "Tamil", "Latin", "Latin", "Myanmar", "Latin")
    ]
    assert all(LANGUAGES[code].code == code for code in BUILT_IN)


@pytest.mark.parametrize("code", BUILT_IN)
def test_every_language_names_all_eight_differently(code):
    names = LANGUAGES[code].names
    assert set(names) == set(BUILT_IN)
    assert len(set(names.values())) == len(BUILT_IN)


@pytest.mark.parametrize("code", BUILT_IN)
def test_text_is_in_composed_form_and_in_its_script(code):
    language = LANGUAGES[code]
    wording = language.wording
    texts = [*language.names.values(), language.autonym, wording.teacher, wording.teacher_without_answer]
    for text in [*texts, wording.student]:
        assert unicodedata.is_normalized("NFC", text)
        letters = [char for char in re.sub(r"\{\w+\}", "", text) if unicodedata.category(char)[0] in "LM"]
        assert letters
        assert all(unicodedata.name(char).startswith(language.script.upper()) for char in letters)


def test_import_is_light():
    """`dudi --help` reads languages: no torch, no transformers, no babel."""
    heavy = {"torch", "transformers", "babel", "numpy"}
    code = f"import sys, dudi.languages.registry; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("of", "inside", "name"),
    [
        ("vi", "th", "ภาษาเวียดนาม"),
        ("en", "id", "bahasa Inggris"),
        ("th", "ta", "தாய்லாந்து மொழி"),
        ("my", "vi", "tiếng Miến Điện"),
        ("tl", "en", "Tagalog"),
        ("en", "my", "အင်္ဂလိပ်ဘာသာ"),
    ],
)
def test_language_name(of, inside, name):
    assert language_name(of, inside) == name


def test_an_unknown_code_gets_a_suggestion():
    with pytest.raises(ConfigError, match=r"unknown language 'idn' \(did you mean 'id'\?\)"):
        language_name("idn", "en")


def test_without_a_folder_the_eight_are_loaded():
    assert load_languages() == dict(LANGUAGES)


def test_languages_travel_to_worker_processes(tmp_path):
    languages = load_languages(write(tmp_path))
    assert pickle.loads(pickle.dumps(languages)) == languages


def test_one_file_adds_a_language(tmp_path):
    languages = load_languages(write(tmp_path))
    assert list(languages) == [*BUILT_IN, "jv"]
    assert languages["jv"].names["jv"] == "basa Jawa"
    assert languages["th"].names["jv"] == "ภาษาชวา", "[named_by] of the new file comes before CLDR"
    assert languages["id"].names["jv"] == "bahasa Jawa"
    assert languages["vi"].names["jv"] == "tiếng Java", "CLDR's own 'Tiếng' must not stand there twice"
    assert languages["ta"].names["jv"] == "ஜாவனீஸ் மொழி"
    assert languages["my"].names["jv"] == "ဂျာဗားဘာသာ"
    assert languages["en"].names["jv"] == "Javanese"
    assert "jv" not in LANGUAGES["id"].names, "the built-in languages stay as they are"


def test_the_added_language_is_verbalized_from_and_to(tmp_path):
    verbalizer = Verbalizer("cross_lingual", ["jv"], seed=0, languages_dir=write(tmp_path))
    row = {"id": "1", "language": "jv", "prompt": "Apa kuthane Indonesia?", "completion": "Jakarta."}
    from_it = verbalizer.verbalize(row)
    assert from_it.target_language == "en"
    assert from_it.student_messages[-1]["content"] == (
        "Apa kuthane Indonesia?\n\nKasuwun mangsuli ngginakaken basa Inggris."
    )
    to_it = verbalizer.verbalize({**row, "language": "id", "prompt": "Apa ibu kota Indonesia?"})
    assert to_it.target_language in {"jv", "en"}
    only_it = Verbalizer("cross_lingual", ["jv", "id"], 0, exclude_targets=["en"], languages_dir=tmp_path)
    content = only_it.verbalize({**row, "language": "id", "prompt": "Apa ibu kota Indonesia?"}).student_messages[-1]
    assert content["content"] == "Apa ibu kota Indonesia?\n\nTolong jawab dalam bahasa Jawa."


def test_two_added_languages_name_each_other(tmp_path):
    # Neither is named by the other's file, and CLDR's Sundanese lists few languages: [named_by] says it.
    write(tmp_path, JAVANESE.replace("[named_by]\n", '[named_by]\nsu = "basa Jawa"\n'))
    sundanese = JAVANESE.replace("jv", "su").replace("Javanese", "Sundanese").replace("Jawa", "Sunda")
    write(tmp_path, sundanese, "su.toml")
    languages = load_languages(tmp_path)
    assert languages["jv"].names["su"] == "basa Sunda"
    assert languages["su"].names["jv"] == "basa Jawa"


def test_a_language_that_cldr_does_not_know_gets_its_english_name(tmp_path):
    text = JAVANESE.replace('"jv"', '"qaa"').replace("jv =", "qaa =").replace('"Javanese"', '"Testish"')
    languages = load_languages(write(tmp_path, text, "qaa.toml"))
    assert languages["id"].names["qaa"] == "bahasa Testish"
    assert languages["en"].names["qaa"] == "Testish"


def test_the_environment_variable_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(LANGUAGES_DIR_VARIABLE, str(write(tmp_path)))
    assert "jv" in load_languages()
    assert language_name("jv", "th") == "ภาษาชวา"
    assert Verbalizer("cross_lingual", ["jv", "id"], 0).targets == ("en", "id", "jv")
    assert tuple(LANGUAGES) == BUILT_IN


def test_a_given_folder_comes_before_the_environment_variable(tmp_path, monkeypatch):
    monkeypatch.setenv(LANGUAGES_DIR_VARIABLE, str(tmp_path / "gone"))
    assert "jv" in load_languages(write(tmp_path / "given"))


def test_an_edited_file_is_read_again(tmp_path):
    assert load_languages(write(tmp_path))["th"].names["jv"] == "ภาษาชวา"
    write(tmp_path, JAVANESE.replace("ภาษาชวา", "ภาษาชวาแบบสุภาพ"))
    assert load_languages(tmp_path)["th"].names["jv"] == "ภาษาชวาแบบสุภาพ"


def test_a_built_in_language_can_be_reworded(tmp_path):
    text = JAVANESE.replace('code = "jv"', 'code = "id"').replace('jv = "basa Jawa"\n', "")
    languages = load_languages(write(tmp_path, text, "id.toml"))
    assert list(languages) == list(BUILT_IN)
    assert "Kasuwun" in languages["id"].wording.student


@pytest.mark.parametrize("name", [".hidden.toml", "notes.txt"])
def test_other_files_are_left_alone(tmp_path, name):
    write(tmp_path, "not a language", name)
    assert "jv" in load_languages(write(tmp_path))


def test_a_byte_order_mark_is_read_over(tmp_path):
    assert "jv" in load_languages(write(tmp_path, "\ufeff" + JAVANESE))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('autonym = "Basa Jawa"\n', "", "key 'autonym' is missing"),
        ('name = "Javanese"', 'name = ""', "key 'name' must be a text that is not empty"),
        ('name = "Javanese"', "name = 3", "key 'name' must be a text that is not empty"),
        ('code = "jv"', 'code = "Jawa!"', "key 'code': 'Jawa!' is not a language code"),
        ('code = "jv"', 'code = "su"', "key 'code' is 'su': name the file su.toml"),
        ('autonym = "Basa', 'autonim = "Basa', r"unknown key 'autonim' \(did you mean 'autonym'\?\)"),
        ('th = "basa Thai"\n', "", "key 'names' lacks th"),
        ('jv = "basa Jawa"\n', "", "key 'names' lacks jv"),
        ('th = "basa Thai"', 'th = "basa {Thai}"', "key 'names.th' must be one line without braces"),
        ("basa {name}", "basa", "key 'cldr_name': 'basa' must hold {name} once"),
        ("[named_by]\nth =", "named_by =", "key 'names.named_by': 'named_by' is not a language code"),
        ("[names]", "named_by = 'x'\n[names]", "not valid TOML"),
        ('script = "Latin"', 'script = "Latin"\nnames = "x"', "not valid TOML"),
        ("[wording]", "[wordings]", r"unknown key 'wordings' \(did you mean 'wording'\?\)"),
        ('student = """', 'pupil = """', "unknown key 'wording.pupil'"),
        ("[wording]\n", "[wording]\nsdft = '{question} {answer} {x}'\n", "unknown key 'wording.sdft'"),
        ("{answer}\n", "", "key 'wording.teacher' must hold {answer} once, has it 0 times"),
        ("{answer}\n", "{answer} {answer}\n", "key 'wording.teacher' must hold {answer} once, has it 2 times"),
        ("{answer}\n", "{answr}\n", "key 'wording.teacher': '{answr}' is not a placeholder"),
        ("{answer}\n", "{answer} }\n", "key 'wording.teacher': '}' is not a placeholder"),
        ("[wording]", "[wording", "not valid TOML: .*line"),
    ],
)
def test_a_broken_file_is_named_with_its_key(tmp_path, old, new, message):
    assert old in JAVANESE
    folder = write(tmp_path, JAVANESE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as caught:
        load_languages(folder)
    assert "jv.toml" in str(caught.value)
    assert str(caught.value).count("\n") <= 1


def test_invalid_utf8_is_named_with_its_line(tmp_path):
    (tmp_path / "jv.toml").write_bytes(JAVANESE.encode().replace(b"Basa Jawa", b"Basa \xff"))
    with pytest.raises(ConfigError, match=r"jv\.toml:3: not valid UTF-8"):
        load_languages(tmp_path)


def test_a_student_with_the_answer_is_refused(tmp_path):
    """Otherwise p_z would show the ground truth to the student."""
    folder = write(tmp_path, JAVANESE.replace('student = """\n', 'student = """\n{answer}\n'))
    with pytest.raises(ConfigError, match=r"key 'wording.student': '{answer}' is not a placeholder"):
        load_languages(folder)


@pytest.mark.parametrize(("name", "message"), [("gone", "no such folder"), ("", "holds no language file")])
def test_a_folder_without_languages(tmp_path, name, message):
    with pytest.raises(ConfigError, match=message):
        load_languages(tmp_path / name)


@pytest.mark.parametrize("code", BUILT_IN)
def test_the_guide_shows_the_wording_as_it_is(code):
    guide = GUIDE.read_text(encoding="utf-8")
    line = next(line for line in guide.splitlines() if line.startswith(f"| `{code}` |"))
    wording = LANGUAGES[code].wording
    parts = [part for text in (wording.teacher, wording.student) for part in re.split(r"\{\w+\}|\n", text)]
    assert all(part.strip() in line for part in parts)
    assert any(name in line for name in LANGUAGES[code].names.values())
    assert wording.teacher_without_answer == wording.student, "as the guide says"


BESIDE_A_CLONE = """
import importlib.machinery, importlib.util, sys
from pathlib import Path
src = Path(sys.argv[1])
sys.path[:] = [place for place in sys.path if not (Path(place) / "dudi" / "__init__.py").is_file()]
class Editable:  # as setuptools' finder of an editable install: it comes after the search of the path
    def find_spec(name, path=None, target=None):
        place = src.joinpath(*name.split("."))
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        return importlib.util.spec_from_file_location(name, file) if file.is_file() else None
sys.meta_path = [one for one in sys.meta_path if "editable" not in str(one)] + [Editable]
from dudi.languages.registry import LANGUAGES
print(len(LANGUAGES))
"""


def test_languages_are_found_where_a_clone_called_dudi_lies_in_the_folder(tmp_path):
    (tmp_path / "dudi").mkdir()
    src = Path(registry.__file__).parents[2]
    words = [sys.executable, "-c", BESIDE_A_CLONE, str(src)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "8", done.stderr
