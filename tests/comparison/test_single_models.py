"""Single models in `compare`: which test is used over their questions, and where there is none."""

import dataclasses
import json

import pytest

from dudi.comparison.load import load_evaluations
from dudi.comparison.paired import MCNEMAR, PERMUTATION, mcnemar
from dudi.comparison.render import render
from dudi.comparison.table import compare
from dudi.evaluation.records import Evaluation, SeedScores, keep_evaluations

BENCHMARK = {"name": "mine", "questions": 40, "fingerprint": "ab"}


def answers(name, right, *, benchmark="mine", seed=0, lengths=None, split="x"):
    """Forty questions in two languages, those in `right` answered rightly."""
    for number in range(40):
        yield {
            "benchmark": benchmark,
            "subject": name,
            "id": f"q{number}",
            "language": "id" if number % 2 else "th",
            "split": split,
            "exact": number in right,
            "chrf": 50.0 + number % 7 + (10 if number in right else 0),
            "bits": (lengths or {}).get(number, 8.0),
            "bytes": 10,
            "seed": seed,
        }


def keep(folder, name, right, *, seeds=(0,), **options):
    """An evaluation with its answers in a folder, its scores as the answers have them."""
    lines = list(answers(name, right, **options))

    def leaf(code=None):
        own = [line for line in lines if code in (None, line["language"])]
        return {
            "questions": len(own),
            "exact_match": sum(line["exact"] for line in own) / len(own),
            "chrf": sum(line["chrf"] for line in own) / len(own),
            "bits_per_byte": sum(line["bits"] for line in own) / sum(line["bytes"] for line in own),
        }

    scores = {"overall": leaf(), "by_language": {code: leaf(code) for code in ("id", "th")}}
    runs = tuple(SeedScores(seed, scores) for seed in seeds)
    keep_evaluations([Evaluation(name, name, BENCHMARK, runs)], lines, folder / name)
    return str(folder / name)


@pytest.fixture
def two(tmp_path):
    """A has 30 of 40 right, B 18 of these and two others."""
    right = set(range(30))
    return [keep(tmp_path, "a", right), keep(tmp_path, "b", set(range(18)) | {35, 36})]


def test_right_or_wrong_is_tested_by_mcnemar(two):
    comparison = compare(load_evaluations(two))
    cell = comparison.cell("a", "overall")
    assert (cell.test, cell.against, cell.eps, cell.n) == (MCNEMAR, "b", None, 1)
    assert cell.p == pytest.approx(mcnemar(12, 2)) and len(comparison.duels) == 3
    assert cell.significant == (cell.p < 0.05 / 3)
    assert comparison.cell("b", "overall").p is None and not comparison.notes


def test_other_scores_are_tested_by_permutation(two):
    comparison = compare(load_evaluations(two), metric="chrf")
    cell = comparison.cell("a", "th")
    assert cell.test == PERMUTATION and 0 < cell.p < 1


def test_less_is_better_for_bits(tmp_path):
    few = {number: 4.0 + number % 3 for number in range(40)}
    words = [keep(tmp_path, "a", set(), lengths=few), keep(tmp_path, "b", set())]
    comparison = compare(load_evaluations(words), metric="bits_per_byte")
    cell = comparison.cell("a", "overall")
    assert cell.best and cell.significant and cell.test == PERMUTATION
    assert comparison.cell("b", "overall").p is None


def test_a_candidate_that_is_behind_is_never_significant(two):
    comparison = compare(load_evaluations(two), candidate="b", confidence=0.9)
    cell = comparison.cell("b", "overall")
    assert cell.p == pytest.approx(mcnemar(12, 2)) and not cell.significant


def test_all_rivals_that_tie_must_be_beaten(tmp_path):
    words = [
        keep(tmp_path, "a", set(range(30))),
        keep(tmp_path, "b", set(range(20))),
        keep(tmp_path, "c", set(range(10, 30))),
    ]
    cell = compare(load_evaluations(words)).cell("a", "overall")
    assert cell.against == "b, c" and cell.p == pytest.approx(mcnemar(10, 0))


def test_every_format_says_which_test(two):
    comparison = compare(load_evaluations(two))
    text = render(comparison, "text", eps=True)
    assert "McNemar over" in " ".join(text.split()) and "p <" in text and "(McNemar)" in text
    assert "McNemar over questions" in render(comparison, "markdown")
    header, *rows = render(comparison, "csv").splitlines()
    assert header.endswith(",p,test,stderr") and any(row.endswith(",McNemar,") for row in rows)


def test_a_name_of_ones_own_finds_the_answers(two):
    a, b = two
    comparison = compare(load_evaluations([f"Mine={a}", f"Other={b}"]))
    assert comparison.cell("Mine", "overall").test == MCNEMAR


def test_no_test_without_the_same_questions(two, tmp_path):
    a, b = two
    lines = (tmp_path / "b" / "answers.jsonl").read_text().splitlines()
    (tmp_path / "b" / "answers.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    comparison = compare(load_evaluations([a, b]))
    assert comparison.cell("a", "overall").p is None or comparison.cell("a", "id").p is None
    assert any("Not tested" in note for note in comparison.notes)
    (tmp_path / "b" / "answers.jsonl").unlink()
    assert not compare(load_evaluations([a, b])).duels


def test_seeds_are_tested_by_aso_as_ever(tmp_path):
    words = [keep(tmp_path, "a", set(range(30)), seeds=(0, 1, 2)), keep(tmp_path, "b", set(range(20)), seeds=(0, 1, 2))]
    comparison = compare(load_evaluations(words))
    cell = comparison.cell("a", "overall")
    assert cell.eps is not None and cell.p is None and "ASO, eps_min" in render(comparison, "text")


def test_answers_of_another_benchmark_or_seed_do_not_count(tmp_path):
    a = keep(tmp_path, "a", set(range(30)))
    b = keep(tmp_path, "b", set(range(10)))
    other = list(answers("b", set(range(40)), benchmark="other"))
    with (tmp_path / "b" / "answers.jsonl").open("a") as out:
        out.writelines(json.dumps(line) + "\n" for line in other)
    assert compare(load_evaluations([a, b])).cell("a", "overall").p == pytest.approx(mcnemar(20, 0))


def test_where_the_answers_are_is_not_written(two, tmp_path):
    (found,) = load_evaluations(two[:1])
    assert found.answers == (tmp_path / "a" / "answers.jsonl", "a")
    assert "answers" not in json.loads((tmp_path / "a" / "evaluation.json").read_text())["evaluations"][0]
    assert found == dataclasses.replace(found, answers=None)
