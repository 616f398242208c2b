"""The lab of the long tests, and the table of promises that they print at their end."""

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / name) for name in ("config", "study"))]  # it takes some of their helpers
TABLE = "DUDI_TRUST_TABLE"


def pytest_configure(config):
    if "workerinput" not in vars(config):
        os.environ[TABLE] = tempfile.mkstemp(suffix=".jsonl")[1]


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    from lab import Lab

    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.server.close()


@pytest.fixture
def promise():
    """`promise(row, tried=, lost=)`: what a test tried, how often, and how often something was lost."""

    def record(row, tried, lost=0, unit="trials", note=""):
        with open(os.environ[TABLE], "a", encoding="utf-8") as file:
            line = {"row": row, "tried": tried, "lost": lost, "unit": unit, "note": note}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        assert not lost, f"{row}: lost {lost} of {tried}"

    return record


def pytest_terminal_summary(terminalreporter, config):
    if "workerinput" in vars(config):  # a worker of xdist has a summary of its own, which nobody sees
        return
    path = Path(os.environ[TABLE])
    rows = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        row = rows.setdefault(one["row"], {"tried": 0, "lost": 0, "unit": one["unit"], "notes": []})
        row["tried"] += one["tried"]
        row["lost"] += one["lost"]
        row["notes"] += [one["note"]] if one["note"] else []
    path.unlink()
    if not rows:
        return
    terminalreporter.section("promises")
    for name in sorted(rows):
        row = rows[name]
        terminalreporter.write_line(f"{name}: {row['tried']} {row['unit']}, lost {row['lost']}")
        for note in row["notes"]:
            terminalreporter.write_line(f"    {note}")
