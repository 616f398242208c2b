"""A hub that has no such name, gates, breaks, is busy or serves pickles and scripts: one message each, no code run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hub
import pytest

from dudi.models.load import locate
from hostile_corpus import MARKER, evil_module, evil_pickle

RECIPE = "student: package:dudi/mini/small\ndata: cldr\nmethod: sft\nlanguages: [id]\nmax_steps: 1\nuse_cpu: true\n"
WORDS = {
    "none": (2, "check the spelling"),
    "private": (2, "if it is private"),
    "gated": (1, "is gated: accept its terms"),
    "gated-without-login": (1, "is gated: accept its terms"),
    "down": (1, "answers 503; try again later"),
    "broken": (1, "answers 500; try again later"),
    "busy": (1, "answers 429; try again later"),
    "pickled": (2, "dudi reads no pickles"),
    "kernel": (3, "asks for the kernel 'org/kernel', which is code from the hub"),
    "malformed": (3, "Field 'vocab_size' expected int"),
    "leading-out": (3, "vocab_file leads to '../../secret.txt'"),
    "sharded-out": (3, "names '../../x.safetensors'"),
    "script": (2, "Dataset scripts are no longer supported"),
}
"""Repository to exit code and words of the message."""


def environment(folder, endpoint):
    """Ours, with a hub's client that is on, and a cache of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "home"), "DUDI_CACHE": str(folder / "cache")}
    return kept | own | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    (folder / "recipe.yaml").write_text(RECIPE)
    row = {"id": "a", "language": "id", "prompt": "Apa?", "completion": "Ya."}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    model = Path(locate("package:dudi/mini/small"))
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    files = {name: (model / name).read_bytes() for name in names if (model / name).is_file()}
    files |= {"pytorch_model.bin": evil_pickle(folder), "script.py": evil_module(folder).encode()}
    with hub.serve(files) as endpoint:
        command = [sys.executable, hub.__file__, str(folder)]
        done = subprocess.run(
            command, env=environment(folder, endpoint), capture_output=True, text=True, timeout=900, check=True
        )
    return folder, [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"case"')]


def test_each_case_ends_in_one_message(told):
    folder, results = told
    assert len(results) == len(hub.cases(folder))
    for result in results:
        code, words = WORDS[result["case"].split()[1]]
        assert result["code"] == code and words in result["said"], result
        assert result["said"].startswith("error: ") and "org/" in result["said"].replace("--", "/"), result
        assert result["said"].count("\n") <= 2, result


def test_nothing_that_it_served_ran(told):
    folder, _ = told
    assert not list(folder.rglob(MARKER))
