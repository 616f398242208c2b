"""Make the task files of lm-evaluation-harness in src/dudi/tasks/ from the words in task_wording.toml.

    python scripts/task_files.py            # write them
    python scripts/task_files.py --check    # exit code 1 where a file is not what would be written

The files are what ships and what people read. A base without the suffix .yaml holds what all languages of a set share
(lm_eval takes every .yaml for a task). Templates read the columns of the set on the hub. `metadata.data` says how a
local Parquet file with the columns `lang`, `split` and `row` becomes those: dudi.data.task_data.
"""

import argparse
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dudi.languages.flores import FLORES, NTREX
from dudi.languages.registry import BUILT_IN
from dudi.languages.translation import translation_prompt

FOLDER = Path(__file__).parents[1] / "src" / "dudi" / "tasks"
WORDING = tomllib.loads(Path(__file__).with_name("task_wording.toml").read_text(encoding="utf-8"))
VERSION = 1.0
HEAD = "# Made by scripts/task_files.py; docs/tasks.md.\n"
TOPICS = ["science/technology", "travel", "politics", "sports", "health", "entertainment", "geography"]
LICENCES = {
    "sib200": "CC BY-SA 4.0 (SIB-200, its text from FLORES-200)",
    "belebele": "CC BY-SA 4.0 (Belebele)",
    "global_mmlu_lite": "Apache-2.0 (Global-MMLU)",
    "xcopa": "CC BY 4.0 (XCOPA; Tagalog: Batayan)",
    "ntrex128": "CC BY-SA 4.0 (NTREX-128)",
    "nusax_senti": "CC BY-SA 4.0 (NusaX)",
    "indonli": "CC BY-SA 4.0 (IndoNLI)",
    "xnli_noncommercial": "CC BY-NC 4.0 (XNLI): for evaluation, not for training what is sold",
}
"""By the stem of the local file."""
ACCURACY = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
ACCURACY_A_CHARACTER = {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True}
Files = Iterator[tuple[str, dict[str, Any]]]
"""Paths below `FOLDER` and what stands in them."""


def main() -> int:
    """Write or check the files.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a file differs")
    check = parser.parse_args().check
    wanted = {FOLDER / name: HEAD + dumped(content) for name, content in task_files()}
    there = {path for path in FOLDER.rglob("*") if path.is_file()}
    stale = [path for path, text in wanted.items() if path not in there or path.read_text(encoding="utf-8") != text]
    if check:
        for path in [*stale, *sorted(there - set(wanted))]:
            sys.stderr.write(f"{path}: is not what scripts/task_files.py makes\n")
        return 1 if stale or there - set(wanted) else 0
    for path in there - set(wanted):
        path.unlink()
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path], encoding="utf-8")
    sys.stdout.write(f"{len(wanted)} files, {len(stale)} of them new\n")
    return 0


def task_files() -> Files:
    """Every file of every set."""
    for make in (sib200, belebele, xcopa, global_mmlu_lite, ntrex, nusax, nli):
        yield from make()


def sib200() -> Files:
    """Topics of sentences (Adelani et al. 2024)."""
    topics = ", ".join(f"'{topic}'" for topic in TOPICS)
    base = {
        "tag": "dudi_sib200",
        "dataset_path": "Davlan/sib200",
        "training_split": "train",
        "validation_split": "validation",
        "test_split": "test",
        "fewshot_split": "train",
        "output_type": "multiple_choice",
        "doc_to_target": f"{{{{ [{topics}].index(category) }}}}",
        "metric_list": [ACCURACY, ACCURACY_A_CHARACTER],
    }
    data = {"file": "sib200.parquet", "columns": {"label": "category"}, "splits": {"validation": "dev"}}
    leaves = {}
    for code in BUILT_IN:
        words = WORDING[code]
        ask = words["topic_question"].format(topics=("၊ " if code == "my" else ", ").join(words["topics"]))
        leaves[code] = {
            "dataset_name": FLORES[code],
            "doc_to_text": f"{ask}\n\n{words['text']}: {{{{ text }}}}\n{words['topic']}:",
            "doc_to_choice": words["topics"],
        }
    yield from family("sib200", base, leaves, data)


def belebele() -> Files:
    """A question on a passage, four answers (Bandarkar et al. 2024)."""
    base = {
        "tag": "dudi_belebele",
        "dataset_path": "facebook/belebele",
        "test_split": "test",
        "fewshot_split": "test",
        "output_type": "multiple_choice",
        "doc_to_choice": ["A", "B", "C", "D"],
        "doc_to_target": "{{ answer if answer is defined else correct_answer_num | int - 1 }}",
        "metric_list": [ACCURACY],
    }
    answers = [f"mc_answer{number}" for number in (1, 2, 3, 4)]
    data = {"file": "belebele.parquet", "columns": {"passage": "flores_passage", "choices": answers}}
    leaves = {
        code: {
            "dataset_name": FLORES[code],
            "doc_to_text": f"{WORDING[code]['passage']}: {{{{ flores_passage }}}}\n{lettered(code, answers)}",
        }
        for code in BUILT_IN
    }
    yield from family("belebele", base, leaves, data)


def global_mmlu_lite() -> Files:
    """Questions of many subjects, four answers (Singh et al. 2024)."""
    options = [f"option_{letter}" for letter in "abcd"]
    base = {
        "tag": "dudi_global_mmlu_lite",
        "dataset_path": "CohereLabs/Global-MMLU-Lite",
        "validation_split": "dev",
        "test_split": "test",
        "fewshot_split": "dev",
        "output_type": "multiple_choice",
        "doc_to_choice": ["A", "B", "C", "D"],
        "doc_to_target": "{{ answer if answer is string else 'ABCD'[answer] }}",
        "metric_list": [ACCURACY],
    }
    data = {"file": "global_mmlu_lite.parquet", "columns": {"choices": options}}
    leaves: dict[str, dict[str, Any]] = {}
    for code in ("id", "vi", "tl", "ms", "my", "en"):
        on_hub = code in ("id", "en")  # the others are SEA-HELM's translations
        leaves[code] = ({"dataset_name": code} if on_hub else {"dataset_path": "parquet"}) | {
            "doc_to_text": lettered(code, options)
        }
    yield from family("global_mmlu_lite", base, leaves, data)


def lettered(code: str, columns: Sequence[str]) -> str:
    """A question, its four answers behind letters, and the place for a letter."""
    words = WORDING[code]
    answers = "\n".join(f"{letter}. {{{{ {name} }}}}" for letter, name in zip("ABCD", columns, strict=True))
    return f"{words['question']}: {{{{ question }}}}\n{answers}\n{words['letter']}:"


def xcopa() -> Files:
    """The likelier of two causes or effects, as the end of a sentence (Ponti et al. 2020)."""
    starts = ("choice1[:1] | lower ~ choice1[1:]", "choice2[:1] | lower ~ choice2[1:]")
    base = {
        "tag": "dudi_xcopa",
        "dataset_path": "cambridgeltl/xcopa",
        "validation_split": "validation",
        "test_split": "test",
        "fewshot_split": "validation",
        "output_type": "multiple_choice",
        "doc_to_choice": f"{{{{ [{', '.join(starts)}] }}}}",
        "doc_to_target": "{{ label }}",
        "metric_list": [ACCURACY, ACCURACY_A_CHARACTER],
    }
    data = {
        "file": "xcopa.parquet",
        "columns": {"choices": ["choice1", "choice2"], "answer": "label"},
        "splits": {"validation": "val"},
    }
    leaves = {}
    for code in ("id", "vi", "th", "ta", "tl"):
        words = WORDING[code]
        join = f"'{words['cause']}' if question == 'cause' else '{words['effect']}'"
        leaves[code] = {"dataset_name": code, "doc_to_text": f"{{{{ premise.strip().rstrip('.') }}}} {{{{ {join} }}}}"}
    leaves["th"]["target_delimiter"] = ""  # Thai writes no space there
    leaves["tl"] = {
        "dataset_path": "parquet",
        "doc_to_text": leaves["tl"]["doc_to_text"],
        "data": {"splits": {"test": "test_batayan"}},
    }
    yield from family("xcopa", base, leaves, data)


def ntrex() -> Files:
    """News (Federmann et al. 2022): bits a byte of the text and of its translation, and translations to be written."""
    shared = {"dataset_path": "mteb/NTREX", "test_split": "test", "fewshot_split": "test"}
    data = {"file": "ntrex128.parquet"}
    bits = {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}
    alone = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "metric_list": [bits]}
    leaves = {
        code: {"doc_to_target": f"{{{{ {NTREX[code]} }}}}", "data": {"columns": {"text": NTREX[code]}}}
        for code in BUILT_IN
    }
    yield from family("ntrex_bits", {"tag": "dudi_ntrex_bits", **shared, **alone}, leaves, data)
    # dudi adds bits per byte of the target to every task of the type loglikelihood; lm_eval alone knows only whether
    # the target is greedy, which no sentence is
    bypass = {"metric": "bypass", "aggregation": "bypass", "higher_is_better": False}
    given = {"output_type": "loglikelihood", "metric_list": [bypass]}
    scores = [{"metric": name, "aggregation": name, "higher_is_better": True} for name in ("chrf", "chrf++")]
    written = {
        "output_type": "generate_until",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 256},
        "filter_list": [{"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
        "metric_list": scores,
    }
    for name, base, space in (("ntrex_bits", given, " "), ("ntrex", written, "")):
        for direction in ("from_en", "to_en"):
            tag = {"tag": f"dudi_{name}_{direction}"}
            yield from family(f"{name}_{direction}", tag | shared | base, translations(direction, space), data)


def translations(direction: str, space: str) -> dict[str, dict[str, Any]]:
    """The leaves of one direction; with a space before the target where lm_eval puts none."""
    leaves = {}
    for code in BUILT_IN:
        if code == "en":
            continue
        source, target = ("en", code) if direction == "from_en" else (code, "en")
        leaves[code] = {
            "doc_to_text": translation_prompt(f"{{{{ {NTREX[source]} }}}}", source, target),
            "doc_to_target": f"{space}{{{{ {NTREX[target]} }}}}",
            "data": {"columns": {"text": NTREX[code]}, "parallel": {"en": NTREX["en"]}},
        }
    return leaves


def nusax() -> Files:
    """Sentiment of reviews and posts (Winata et al. 2023)."""
    labels = "['negative', 'neutral', 'positive']"
    base = {
        "tag": "dudi_nusax",
        "dataset_path": "indonlp/NusaX-senti",
        "training_split": "train",
        "validation_split": "validation",
        "test_split": "test",
        "fewshot_split": "train",
        "output_type": "multiple_choice",
        "doc_to_target": f"{{{{ label if label is number else {labels}.index(label) }}}}",
        "metric_list": [ACCURACY, ACCURACY_A_CHARACTER],
    }
    data = {"file": "nusax_senti.parquet", "splits": {"validation": "valid"}}
    leaves = {
        code: {
            "dataset_name": name,
            "doc_to_text": f"{WORDING[code]['text']}: {{{{ text }}}}\n{WORDING[code]['sentiment']}:",
            "doc_to_choice": WORDING[code]["sentiments"],
        }
        for code, name in (("id", "ind"), ("en", "eng"))
    }
    yield from family("nusax", base, leaves, data)


def nli() -> Files:
    """Whether a statement follows from a text: IndoNLI (Mahendra et al. 2021) and XNLI (Conneau et al. 2018)."""
    labels = "['entailment', 'neutral', 'contradiction']"
    base = {
        "output_type": "multiple_choice",
        "doc_to_target": f"{{{{ label if label is number else {labels}.index(label) }}}}",
        "metric_list": [ACCURACY, ACCURACY_A_CHARACTER],
    }
    indonli = {
        "tag": "dudi_indonli",
        "dataset_path": "afaji/indonli",
        "training_split": "train",
        "validation_split": "validation",
        "test_split": "test_lay",
        "fewshot_split": "train",
    }
    data = {"file": "indonli.parquet", "splits": {"validation": "val"}}
    yield from family("indonli", indonli | base, {"id": statement("id")}, data)
    xnli = {
        "tag": "dudi_xnli",
        "dataset_path": "facebook/xnli",
        "validation_split": "validation",
        "test_split": "test",
        "fewshot_split": "validation",
    }
    leaves: dict[str, dict[str, Any]] = {
        code: {"dataset_name": code, **statement(code)} for code in ("vi", "th", "ta", "tl", "my", "en")
    }
    leaves["ta"]["dataset_path"] = "Divyanshu/indicxnli"
    for code in ("tl", "my"):
        leaves[code] = {"dataset_path": "parquet", **statement(code)}
    for code in ("vi", "th", "ta", "tl"):
        leaves[code]["data"] = {"splits": {"test": "sample_test"}}
    yield from family("xnli", xnli | base, leaves, {"file": "xnli_noncommercial.parquet"})


def statement(code: str) -> dict[str, Any]:
    """A text, a statement, and the question whether the one says the other."""
    words = WORDING[code]
    lines = [f"{words['text']}: {{{{ premise }}}}", f"{words['statement']}: {{{{ hypothesis }}}}"]
    text = "\n".join([*lines, words["verdict"], f"{words['answer']}:"])
    return {"doc_to_text": text, "doc_to_choice": words["verdicts"]}


def family(name: str, base: dict[str, Any], leaves: Mapping[str, dict[str, Any]], data: dict[str, Any]) -> Files:
    """The files of a set: a base, and one for each language."""
    yield f"{name}/_{name}_yaml", base
    splits = dict.fromkeys(value for key, value in base.items() if key.endswith("_split"))
    for code, leaf in leaves.items():
        own = dict(leaf)
        more = own.pop("data", {})
        local = data | {"lang": code} | more
        local["columns"] = data.get("columns", {}) | more.get("columns", {})
        local["splits"] = data.get("splits", {}) | more.get("splits", {})
        if own.get("dataset_path") == "parquet":  # on no hub
            stem = Path(local["file"]).stem
            own["dataset_kwargs"] = {"data_files": {split: f"{stem}.{code}.{split}.parquet" for split in splits}}
        local = {key: value for key, value in local.items() if value}
        task = f"dudi_{name}_{code}"
        licence = LICENCES[Path(local["file"]).stem]
        metadata = {"version": VERSION, "language": code, "licence": licence, "data": local}
        yield f"{name}/{task}.yaml", {"include": f"_{name}_yaml", "task": task, **own, "metadata": metadata}


class Dumper(yaml.SafeDumper):
    """YAML as a person writes it: lists indented, texts of several lines as blocks, no aliases."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists inside mappings."""
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        """Write everything out."""
        return True


def dumped(content: Mapping[str, Any]) -> str:
    """A file's text."""
    return str(yaml.dump(dict(content), Dumper=Dumper, allow_unicode=True, sort_keys=False, width=1000))


def text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Texts of several lines as blocks, unless YAML would lose something."""
    style = "|" if "\n" in text.strip("\n") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, text_node)


if __name__ == "__main__":
    raise SystemExit(main())
