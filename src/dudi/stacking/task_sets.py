"""The data sets of `dudi stack prepare`, as data: where each lies, what its columns mean, and what is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dudi.errors import ConfigError, did_you_mean

SOURCE_LANGUAGE = "eng_Latn"
"""What tasks are learned in."""
NLI = ("entailment", "neutral", "contradiction")
TOPICS = ("science/technology", "travel", "politics", "sports", "health", "entertainment", "geography")


@dataclasses.dataclass(frozen=True, slots=True)
class Hub:
    """Where rows lie on the hub.

    Attributes:
        name: The dataset.
        splits: Our splits to its own.
        config: Its part for a language, from the set's own code: `{code}`; None where it has one alone.
        options: More words of `datasets.load_dataset`; `{code}` is filled in too.
    """

    name: str
    splits: Mapping[str, str]
    config: str | None = "{code}"
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class TaskSet:
    """A labelled data set in many languages.

    Attributes:
        name: What `dudi stack prepare` calls it.
        title: For people.
        labels: The classes, in the order of their numbers; none where one of several choices is right.
        fields: Columns of the rows that are written, each with the set's own names for it, the first that is there.
        choices: Columns of the choices, where each has its own.
        label: Columns of the label, each with the number of the first class or choice in it.
        ids: Columns that name a row; the same ones in every language. None: its number in the file.
        hub: The evaluation rows on the hub; None where it is not there.
        train: The English training rows on the hub.
        github: Where it lies, for those who bring the files themselves.
        folders: What its files call languages, beside their codes.
        licence: Its terms, as its authors state them.
        paper: Where it is described.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    fields: Mapping[str, tuple[str, ...]]
    label: Mapping[str, int]
    ids: tuple[str, ...]
    hub: Hub | None
    train: Hub | None
    github: str
    licence: str
    paper: str
    choices: tuple[tuple[str, ...], ...] = ()
    folders: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def task(self) -> dict[str, Any]:
        """The section `task` of a recipe for it."""
        if self.choices:
            return {"kind": "choice"}
        return {"kind": "classification", "labels": list(self.labels)}


_HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
_NLI_FIELDS = {
    "premise": ("s1_translation", "premise", "sentence1"),
    "hypothesis": ("s2_translation", "hypothesis", "sentence2"),
}
_NLI_LABEL = {"gold_label": 0, "label": 0}
_MNLI = Hub("facebook/xnli", {"train": "train", "dev": "validation"}, "en")
_FOUR_ANSWERS = tuple((f"mc_answer{number}", f"answer{number}") for number in range(1, 5))
_SIB = Hub("Davlan/sib200", _HUB_SPLITS)
# The set came with a script, which `datasets` runs no more; this branch is the hub's own conversion of it.
_CONVERTED = {"revision": "refs/convert/parquet", "data_dir": "{code}"}
_NUSAX = Hub("indonlp/NusaX-senti", _HUB_SPLITS, None, _CONVERTED)

TASK_SETS: Mapping[str, TaskSet] = {
    each.name: each
    for each in (
        TaskSet(
            name="sib200",
            title="SIB-200: topics of sentences",
            labels=TOPICS,
            fields={"text": ("text",)},
            label={"category": 0, "label": 0},
            ids=("index_id", "row"),
            hub=_SIB,
            train=_SIB,
            github="dadelani/sib-200",
            licence="CC-BY-SA-4.0 (the sentences are those of FLORES-200)",
            paper="arXiv 2309.07445",
        ),
        TaskSet(
            name="nusax",
            title="NusaX-senti: sentiment of posts and reviews",
            labels=("negative", "neutral", "positive"),
            fields={"text": ("text",)},
            label={"label": 0},
            ids=("id", "row"),
            hub=_NUSAX,
            train=_NUSAX,
            github="IndoNLP/nusax",
            licence="CC-BY-SA-4.0",
            paper="arXiv 2205.15960",
            folders={
                "acehnese": "ace",
                "balinese": "ban",
                "banjarese": "bjn",
                "buginese": "bug",
                "english": "eng",
                "indonesian": "ind",
                "javanese": "jav",
                "madurese": "mad",
                "minangkabau": "min",
                "ngaju": "nij",
                "sundanese": "sun",
                "toba_batak": "bbc",
            },
        ),
        TaskSet(
            name="xnli",
            title="XNLI: does a premise entail a hypothesis?",
            labels=NLI,
            fields=_NLI_FIELDS,
            label=_NLI_LABEL,
            ids=("pairID", "row"),
            hub=Hub("facebook/xnli", _HUB_SPLITS),
            train=_MNLI,
            github="facebookresearch/XNLI",
            licence="CC-BY-NC-4.0: not for commercial use",
            paper="arXiv 1809.05053",
        ),
        TaskSet(
            name="americasnli",
            title="AmericasNLI: does a premise entail a hypothesis?",
            labels=NLI,
            fields=_NLI_FIELDS,
            label=_NLI_LABEL,
            ids=("row",),
            hub=Hub("nala-cub/americas_nli", {"dev": "validation", "test": "test"}),
            train=_MNLI,
            github="nala-cub/AmericasNLI",
            licence="CC-BY-SA-4.0",
            paper="arXiv 2104.08726",
        ),
        TaskSet(
            name="kardesnlu",
            title="Kardes-NLU: does a premise entail a hypothesis?",
            labels=NLI,
            fields=_NLI_FIELDS,
            label=_NLI_LABEL,
            ids=("Unnamed: 0", "", "row"),
            hub=None,
            train=_MNLI,
            github="lksenel/Kardes-NLU",
            licence="not stated by its authors",
            paper="EACL 2024",
            folders={"azeri": "az", "kazakh": "kk", "kyrgyz": "ky", "uyghur": "ug", "uzbek": "uz"},
        ),
        TaskSet(
            name="belebele",
            title="Belebele: which of four answers does a passage give?",
            labels=(),
            fields={"passage": ("flores_passage", "passage"), "question": ("question",)},
            choices=_FOUR_ANSWERS,
            label={"correct_answer_num": 1, "answer": 0},
            ids=("link", "question_number", "dataset", "passage_id", "question_id", "row"),
            hub=Hub("facebook/belebele", {"test": "test"}),
            train=Hub("WueNLP/belebele-fleurs-train-val-text", {"train": "train", "dev": "validation"}, None),
            github="facebookresearch/belebele",
            licence="CC-BY-SA-4.0; its training mix mostly CC-BY-NC",
            paper="arXiv 2308.16884",
        ),
    )
}


def find_set(name: str) -> TaskSet:
    """A data set by its name; a ConfigError names the nearest where there is none."""
    if name not in TASK_SETS:
        raise ConfigError(f"'{name}' is not one of {', '.join(TASK_SETS)}{did_you_mean(name, TASK_SETS)}")
    return TASK_SETS[name]
