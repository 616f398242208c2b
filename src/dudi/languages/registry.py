"""The languages: code, names, script and the verbalizer's wording, one TOML file each.

The eight built in lie in `languages/templates/`; a folder of the user's adds more (docs/verbalizer.md, "Add a
language"). Imports neither torch nor transformers.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dudi.errors import ConfigError, did_you_mean

BUILT_IN: tuple[str, ...] = ("id", "vi", "th", "ta", "tl", "ms", "my", "en")
"""Codes of the languages that come with the package, in the order of the paper's tables, English last."""

LANGUAGES_DIR_VARIABLE = "DUDI_LANGUAGES_DIR"
"""The environment variable that names a folder of further languages."""

_PLACEHOLDERS: dict[str, tuple[str, ...]] = {
    "teacher": ("question", "answer", "language"),
    "teacher_without_answer": ("question", "language"),
    "student": ("question", "language"),
    "sdft": ("question", "answer"),
    "sdft_without_answer": ("question",),
}
_ENGLISH_ONLY = ("sdft", "sdft_without_answer")
_TEXT_KEYS = ("code", "name", "autonym", "script")
_OPTIONAL_KEYS = ("cldr_name", "named_by", "translation")
_CODE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_BRACE = re.compile(r"\{[^{}]*\}|[{}]")


@dataclasses.dataclass(frozen=True, slots=True)
class Wording:
    """The templates of one language; `{question}`, `{answer}` and `{language}` are filled in by the verbalizer.

    Attributes:
        teacher: z: the question, the ground truth as an example, and the wish for an own answer in `{language}`.
        teacher_without_answer: z for a row whose full z would be too long for the teacher.
        student: p_z: the question and the wish for an answer in `{language}`.
        sdft: English's file: the wording of SDFT, with `{question}` and `{answer}`; empty elsewhere.
        sdft_without_answer: The same without the example.
    """

    teacher: str
    teacher_without_answer: str
    student: str
    sdft: str = ""
    sdft_without_answer: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Language:
    """One language, as its file describes it.

    Attributes:
        code: The code that rows and recipes use: `th`, `jv`, `pt-BR`.
        name: English name.
        autonym: What its speakers call it.
        script: Unicode's name of its script, such as `Latin`, `Thai` or `Myanmar`.
        names: Code to the name of that language, written in this one, in the form that fits this one's wording.
        wording: The verbalizer's templates.
        cldr_name: How a bare CLDR name becomes one for `names`, for a language this file does not name.
        named_by: Code of another language to what that one calls this one: how a new file names itself to the others.
        translation: The wish for a translation into `{language}`; empty where the file has none.
    """

    code: str
    name: str
    autonym: str
    script: str
    names: Mapping[str, str] = dataclasses.field(hash=False)
    wording: Wording
    cldr_name: str = "{name}"
    named_by: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    translation: str = ""


def load_languages(extra_dir: Path | None = None) -> dict[str, Language]:
    """The built-in languages, then those of a folder; `names` of each covers all of them.

    Args:
        extra_dir: A folder of `<code>.toml` files; None takes the one that `DUDI_LANGUAGES_DIR` names, if any. A file
            whose code is built in replaces the built-in one.

    Returns:
        Code to language.

    Raises:
        ConfigError: the folder is missing or holds no file, or a file is broken (names the file and the key).
    """
    given = extra_dir or os.environ.get(LANGUAGES_DIR_VARIABLE)
    if not given:
        return dict(LANGUAGES)
    return dict(_with_folder(_listing(Path(os.path.expanduser(given)))))


def language_name(of: str, inside: str) -> str:
    """What the language `inside` calls the language `of`: `language_name("vi", "th")` is `ภาษาเวียดนาม`.

    Raises:
        ConfigError: one of the codes is not known.
    """
    languages = load_languages()
    check_codes([of, inside], languages, "language")
    return languages[inside].names[of]


def check_codes(codes: Iterable[str], known: Iterable[str], key: str) -> None:
    """Refuse codes that are not known, with the nearest one that is; `key` is where they came from.

    Raises:
        ConfigError: a code is not in `known`.
    """
    valid = list(known)
    for code in codes:
        if code in valid:
            continue
        raise ConfigError(
            f"{key}: unknown language '{code}'{did_you_mean(code, valid)}; known: {', '.join(valid)}\n"
            f"To add one, put its file in a folder and name that folder in {LANGUAGES_DIR_VARIABLE} "
            "(docs/verbalizer.md)."
        )


def _listing(folder: Path) -> tuple[tuple[Path, int, int], ...]:
    """Each file of a folder with its time and size: a key that changes when a file is edited."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of languages ({LANGUAGES_DIR_VARIABLE} or languages_dir)")
    files = sorted(path for path in folder.glob("*.toml") if not path.name.startswith("."))
    if not files:
        raise ConfigError(f"{folder}: holds no language file (<code>.toml)")
    stats = [(path, path.stat()) for path in files]
    return tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats)


@functools.lru_cache(maxsize=8)
def _with_folder(listing: tuple[tuple[Path, int, int], ...]) -> dict[str, Language]:
    merged = dict(LANGUAGES)
    for path, _, _ in listing:
        language = _read(path)
        merged[language.code] = language
    for code, language in merged.items():
        lacking = [other for other in merged.values() if other.code not in language.names]
        names = {other.code: _foreign_name(other, language) for other in lacking}
        merged[code] = dataclasses.replace(language, names={**language.names, **names})
    return merged


def _foreign_name(of: Language, inside: Language) -> str:
    """The name of a language that `inside` does not name: its own file's word for it, else CLDR's, else English."""
    given = of.named_by.get(inside.code)
    if given:
        return given
    # Imported here because the built-in languages name each other and never come this way.
    from babel import Locale, UnknownLocaleError

    try:
        bare = Locale.parse(inside.code, sep="-").languages.get(of.code.replace("-", "_")) or of.name
    except (UnknownLocaleError, ValueError):  # ValueError: a code that is no CLDR identifier
        bare = of.name
    prefix, suffix = inside.cldr_name.split("{name}")
    # Vietnamese CLDR says "Tiếng Java": what the pattern adds must not stand there twice.
    if prefix and bare.casefold().startswith(prefix.casefold()):
        bare = bare[len(prefix) :]
    if suffix and bare.casefold().endswith(suffix.casefold()):
        bare = bare[: -len(suffix)]
    return f"{prefix}{bare}{suffix}"


def _read(file: Path) -> Language:
    """One language from its file."""
    where, content = str(file), file.read_bytes()
    try:
        table = tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{where}:{line}: not valid UTF-8; save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from error
    _check_keys(table, (*_TEXT_KEYS, "names", "wording"), _OPTIONAL_KEYS, where, "")
    code, name, autonym, script = (_text(table[key], where, key) for key in _TEXT_KEYS)
    if not _CODE.fullmatch(code):
        raise ConfigError(f"{where}: key 'code': '{code}' is not a language code such as th, jv or pt-BR")
    if code != file.stem:
        raise ConfigError(f"{where}: key 'code' is '{code}': name the file {code}.toml, or correct the key")
    cldr_name = _text(table.get("cldr_name", "{name}"), where, "cldr_name")
    if _BRACE.findall(cldr_name) != ["{name}"]:
        raise ConfigError(f"{where}: key 'cldr_name': '{cldr_name}' must hold {{name}} once and no other brace")
    names = _names(table["names"], where, "names")
    absent = [known for known in (*BUILT_IN, code) if known not in names]
    if absent:
        raise ConfigError(f"{where}: key 'names' lacks {', '.join(absent)}: how is it called in {name}?")
    translation = _text(table["translation"], where, "translation") if "translation" in table else ""
    if translation:
        _check_placeholders(translation, ("language",), where, "translation")
    return Language(
        code=code,
        name=name,
        autonym=autonym,
        script=script,
        names=names,
        wording=_wording(table["wording"], where, code),
        cldr_name=cldr_name,
        named_by=_names(table.get("named_by", {}), where, "named_by"),
        translation=translation,
    )


def _check_keys(
    table: Mapping[str, Any], required: Sequence[str], optional: Sequence[str], where: str, inside: str
) -> None:
    for key in table:
        if key not in required and key not in optional:
            hint = did_you_mean(key, (*required, *optional))
            raise ConfigError(f"{where}: unknown key '{inside}{key}'{hint}; remove or rename it")
    for key in required:
        if key not in table:
            raise ConfigError(f"{where}: key '{inside}{key}' is missing (docs/verbalizer.md shows a whole file)")


def _table(value: Any, where: str, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: key '{key}' must be a table: write [{key}]")
    return value


def _text(value: Any, where: str, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{where}: key '{key}' must be a text that is not empty")
    return value.strip()


def _names(value: Any, where: str, key: str) -> dict[str, str]:
    names = {code: _text(name, where, f"{key}.{code}") for code, name in _table(value, where, key).items()}
    for code, name in names.items():
        if not _CODE.fullmatch(code):
            raise ConfigError(f"{where}: key '{key}.{code}': '{code}' is not a language code such as th, jv or pt-BR")
        if "\n" in name or _BRACE.search(name):
            raise ConfigError(f"{where}: key '{key}.{code}' must be one line without braces")
    return names


def _wording(value: Any, where: str, code: str) -> Wording:
    table = _table(value, where, "wording")
    english = _ENGLISH_ONLY if code == "en" else ()
    required = [key for key in _PLACEHOLDERS if key not in _ENGLISH_ONLY]
    _check_keys(table, [*required, *english], [], where, "wording.")
    texts = {key: _text(text, where, f"wording.{key}") for key, text in table.items()}
    for key, text in texts.items():
        _check_placeholders(text, _PLACEHOLDERS[key], where, f"wording.{key}")
    return Wording(**texts)


def _check_placeholders(text: str, wanted: Sequence[str], where: str, key: str) -> None:
    found = _BRACE.findall(text)
    for token in found:
        if token.strip("{}") not in wanted:
            allowed = ", ".join(f"{{{name}}}" for name in wanted)
            raise ConfigError(f"{where}: key '{key}': '{token}' is not a placeholder of it; it may hold {allowed}")
    for name in wanted:
        if (times := found.count(f"{{{name}}}")) != 1:
            raise ConfigError(f"{where}: key '{key}' must hold {{{name}}} once, has it {times} times")


# Beside this file, not through the top package: in a folder that holds a clone `dudi`, Python takes that for it.
_TEMPLATES = Path(__file__).with_name("templates")
LANGUAGES: Mapping[str, Language] = MappingProxyType({code: _read(_TEMPLATES / f"{code}.toml") for code in BUILT_IN})
"""The eight built-in languages, in the order id vi th ta tl ms my en."""
