"""Lines of `answers.jsonl` as items: of every metric the table's own number, and languages of a question together."""

import pytest

from dudi.comparison.bootstrap import lead
from dudi.comparison.items import answers_by_run
from dudi.comparison.load import load_evaluations
from dudi.comparison.table import compare
from dudi.evaluation.records import Evaluation, Run, keep_evaluations


def stack_line(language, item, right, seed=0, overall=True):
    line = {"id": f"{language}/{item}", "item": item, "language": language, "task": "choice", "seed": seed}
    return line | {"scores": {"accuracy": float(right)}} | ({} if overall else {"overall": False})


def test_a_mean_over_languages_without_the_one_that_was_learned_in():
    lines = [stack_line("eng_Latn", str(n), True, overall=False) for n in range(9)]
    lines += [stack_line("ind_Latn", str(n), n < 6) for n in range(9)] + [stack_line("mya_Mymr", "0", False)]
    rival = [line | {"scores": {"accuracy": 0.0}} for line in lines]
    own, other = (list(answers_by_run(each, "accuracy").values()) for each in (lines, rival))
    found = lead(own, other)
    assert found.difference == pytest.approx((6 / 9 + 0 / 1) / 2)
    assert found.items == 9
    column = list(answers_by_run(lines, "accuracy", "language", "eng_Latn").values())
    assert sum(one.value for one in column[0]) == 9


def test_answers_of_students_by_every_metric():
    line = {"id": "a", "language": "th", "split": "seen", "exact": True, "chrf": 60.0, "bits": 80.0, "bytes": 40}
    lines = [line, line | {"id": "b", "exact": False, "chrf": 20.0, "bits": 20.0, "bytes": 10, "seed": None}]
    assert {one.value for one in answers_by_run(lines, "exact_match")[0]} == {0.0, 1.0}
    bits = answers_by_run(lines, "bits_per_byte")[0]
    assert [(one.value, one.weight) for one in bits] == [(80.0, 40.0), (20.0, 10.0)]
    assert answers_by_run(lines, "bits_per_byte", "language", "vi") == {}
    assert answers_by_run(lines, "in_language") == {}


def test_runs_are_told_apart_by_their_seed():
    lines = [stack_line("th", "1", True, seed) for seed in (3, 4)]
    assert set(answers_by_run(lines, "accuracy")) == {3, 4}


def kept(folder, name, right_by_seed, seeds):
    """A system's scores and answers in a folder, a run a seed."""
    runs, lines = [], []
    for seed, right in zip(seeds, right_by_seed, strict=True):
        lines += [
            stack_line("th", str(n), own, seed) | {"benchmark": "b", "subject": name} for n, own in enumerate(right)
        ]
        accuracy = {"accuracy": sum(right) / len(right)}
        runs.append(Run(seed, {"overall": accuracy, "by_language": {"th": accuracy}}))
    keep_evaluations([Evaluation(name, "m", {"name": "b"}, tuple(runs))], lines, folder)


def alternating(count, flipped):
    return [bool(n % 2) ^ (n in flipped) for n in range(count)]


@pytest.mark.parametrize("joined", [False, True])
def test_dudi_compare_gives_no_diamond_to_what_questions_do_not_carry(joined, tmp_path):
    """Four seeds above a rival that is the same in each: eps_min is 0, and 14 questions prove nothing."""
    own = [alternating(14, {0, 2, 4, 7, seed + 8}) for seed in range(4)]
    rival = [[not value for value in alternating(14, set())]] * 4
    for name, runs in (("own", own), ("rival", rival)):
        for seed in range(4) if joined else [0]:
            folder = tmp_path / (f"{name}-{seed}" if joined else "all")
            kept(folder, name, [runs[seed]] if joined else runs, [seed] if joined else range(4))
    words = [f"{name}={tmp_path}/{name}-*" if joined else f"{tmp_path}/all:{name}" for name in ("own", "rival")]
    table = compare(load_evaluations(words))
    cell = table.cell("own", "overall")
    assert cell.eps < 0.2
    assert not cell.significant
    assert any("No lead, though eps_min says so" in note for note in table.notes)


def test_dudi_compare_gives_a_diamond_to_what_they_do(tmp_path):
    kept(tmp_path, "own", [alternating(200, set(range(0, 80, 2))) for _ in range(2)], range(2))
    kept(tmp_path, "rival", [alternating(200, {seed}) for seed in range(2)], range(2))
    table = compare(load_evaluations([f"{tmp_path}:own", f"{tmp_path}:rival"]))
    assert table.cell("own", "overall").significant
    assert not table.notes
