"""Lines of `answers.jsonl` as items: of every metric the table's own number, and languages of a question together."""

import dataclasses

import pytest

from dudi.comparison.bootstrap import lead
from dudi.comparison.items import answers_by_run, resampled
from dudi.comparison.load import load_evaluations
from dudi.comparison.packed import pack, unpacked
from dudi.comparison.paired import ITEM_PERMUTATION, MCNEMAR, paired_permutation
from dudi.comparison.render import render
from dudi.comparison.table import compare
from dudi.evaluation.metrics import METRICS
from dudi.evaluation.question_scores import question_scores
from dudi.evaluation.records import Evaluation, SeedScores, keep_evaluations, read_evaluations
from dudi.stacking.evaluation import judged
from dudi.stacking.rows import StackRow
from dudi.stacking.scores import scores_of
from dudi.training.runlog import read_jsonl


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
        runs.append(SeedScores(seed, {"overall": accuracy, "by_language": {"th": accuracy}}))
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
    assert "eps_min < 0.2, and a bootstrap over items, confidence" in " ".join(render(table, "text").split())
    assert any("No lead, though eps_min says so" in note for note in table.notes)


def test_dudi_compare_gives_a_diamond_to_what_they_do(tmp_path):
    kept(tmp_path, "own", [alternating(200, set(range(0, 80, 2))) for _ in range(2)], range(2))
    kept(tmp_path, "rival", [alternating(200, {seed}) for seed in range(2)], range(2))
    table = compare(load_evaluations([f"{tmp_path}:own", f"{tmp_path}:rival"]))
    assert table.cell("own", "overall").significant
    assert not table.notes


@pytest.mark.parametrize(("count", "marked"), [(2, False), (9, False), (10, True)])
@pytest.mark.parametrize("seeds", [1, 3])
def test_no_table_calls_a_lead_one_over_few_items(seeds, count, marked, tmp_path):
    """All items are won by every seed: over nine that is no lead, by no test, and the note says why."""
    for name, right in (("own", True), ("rival", False)):
        runs = [[right] * count for seed in range(seeds)]
        if seeds > 1:
            runs[0][0] = True  # the rival's seeds vary, and all own ones lie above
        kept(tmp_path, name, runs, range(seeds))
    table = compare(load_evaluations([f"{tmp_path}:own", f"{tmp_path}:rival"]), by="overall")
    assert table.cell("own", "overall").significant is marked
    said = "eps_min" if seeds > 1 else "p"
    note = f"No lead, though {said} says so: fewer than 10 items carry none: own against rival (overall)"
    told = (note in table.notes) or (seeds == 1 and count == 2)  # p is 0.5 there, and says nothing
    assert told is not marked
    assert "◇, in no column here" in render(table, "text") or marked


def test_scores_without_answers_say_how_many_questions_there_were():
    evaluations = []
    for name, level in (("own", 0.8), ("rival", 0.4)):
        runs = []
        for seed in range(4):
            leaves = {count: {"accuracy": level + seed / 100, "questions": count} for count in (9, 10)}
            runs.append(SeedScores(seed, {"overall": leaves[10], "by_task": {"few": leaves[9], "more": leaves[10]}}))
        evaluations.append(Evaluation(name, "m", {"name": "b"}, tuple(runs)))
    table = compare(evaluations, by="task")
    marked = {column: table.cell("own", column).significant for column in table.columns}
    assert marked == {"few": False, "more": True, "overall": True}
    assert any("fewer than 10 items" in note and "(few)" in note for note in table.notes)


LANGUAGES = ("th", "vi", "id", "ms", "tl", "ta", "my", "en")


def kept_in_languages(folder, name, right):
    """One seed's scores and answers: every item is asked in eight languages, and is right or wrong in all of them."""
    lines = [
        stack_line(code, str(n), own) | {"benchmark": "b", "subject": name}
        for code in LANGUAGES
        for n, own in enumerate(right)
    ]
    accuracy = {"accuracy": sum(right) / len(right)}
    run = SeedScores(0, {"overall": accuracy, "by_language": dict.fromkeys(LANGUAGES, accuracy)})
    keep_evaluations([Evaluation(name, "m", {"name": "b"}, (run,))], lines, folder)


@pytest.mark.parametrize(("only_own", "only_rival", "marked"), [(7, 3, False), (20, 2, True)])
def test_one_seed_a_side_is_tested_over_items(only_own, only_rival, marked, tmp_path):
    """Eight languages of ten items are ten items, and not eighty questions."""
    right = [True] * only_own + [False] * only_rival
    kept_in_languages(tmp_path, "own", right)
    kept_in_languages(tmp_path, "rival", [not value for value in right])
    table = compare(load_evaluations([f"{tmp_path}:own", f"{tmp_path}:rival"]))
    cell = table.cell("own", "overall")
    assert cell.test == ITEM_PERMUTATION and cell.significant is marked
    assert cell.p == pytest.approx(paired_permutation([1.0] * only_own + [-1.0] * only_rival), rel=0.5)
    assert table.cell("own", "th").test == MCNEMAR  # there every item is one question
    shown = " ".join(render(table, "text").split())
    assert f"{ITEM_PERMUTATION}, p <" in shown and "over items over questions" not in shown


def test_what_cancels_within_an_item_is_no_difference(tmp_path):
    """One of three items is won in one language and lost in another: it has no say, as a question that both have."""
    for name, wins in (("own", "ab"), ("rival", "c")):
        lines = [
            stack_line(code, item, item in wins if item != "c" else (code == "th") == (name == "own"))
            | {"benchmark": "b", "subject": name}
            for code in ("th", "vi")
            for item in "abc"
        ]
        scores = {"accuracy": sum(line["scores"]["accuracy"] for line in lines) / 6}
        keep_evaluations([Evaluation(name, "m", {"name": "b"}, (SeedScores(0, {"overall": scores}),))], lines, tmp_path)
    cell = compare(load_evaluations([f"{tmp_path}:own", f"{tmp_path}:rival"]), by="overall").cell("own", "overall")
    assert (cell.test, cell.p) == (ITEM_PERMUTATION, 2 / 4)


def test_packed_rows_of_an_item_in_two_splits_are_two():
    lines = [stack_line("th", "1", right) | {"split": split} for split, right in (("x", True), ("y", False))]
    assert len({line["id"] for line in unpacked(pack(lines, "accuracy"))}) == 2


def test_a_split_tests_what_it_shows():
    """A part's number is the mean over languages without the one that was learned in, as the total is."""
    english = [stack_line("eng_Latn", str(n), True, overall=False) | {"split": "x"} for n in range(4)]
    lines = english + [stack_line("ind_Latn", str(n), n < 1) | {"split": "x"} for n in range(4)]
    lines += [line | {"id": f"y/{line['id']}", "split": "y"} for line in english]
    packed = list(unpacked(pack(lines, "accuracy")))
    rival = [line | {"scores": {"accuracy": 0.0}} for line in lines]
    for each in (lines, packed):
        sides = (list(answers_by_run(own, "accuracy", "split", "x").values()) for own in (each, rival))
        assert [sum(one.value for one in run) for side in sides for run in side] == [1.0, 0.0]
        assert {one.cell[0] for one in question_scores(each, "accuracy", "split", "x").values()} == {"ind_Latn"}
        assert len(answers_by_run(each, "accuracy", "split", "y")[0]) == 4  # nothing else is there, and it is shown


def test_a_metric_that_answers_do_not_tell_is_not_marked(tmp_path):
    """What four seeds show over fourteen items says nothing of other items, and a file of answers is there to ask."""
    for name, level in (("own", 0.7), ("rival", 0.5)):
        kept(tmp_path, name, [alternating(14, {seed}) for seed in range(4)], range(4))
        (one,) = (each for each in read_evaluations(tmp_path / "evaluation.json") if each.name == name)
        runs = [SeedScores(run.seed, {"overall": {"score": level + run.seed / 100}}) for run in one.runs]
        lines = [line for line in read_jsonl(tmp_path / "answers.jsonl") if line["subject"] == name]
        keep_evaluations([dataclasses.replace(one, runs=tuple(runs))], lines, tmp_path)
    evaluations = load_evaluations([f"{tmp_path}:own", f"{tmp_path}:rival"])
    table = compare(evaluations, by="overall", metric="score")
    assert table.cell("own", "overall").eps < 0.2 and not table.cell("own", "overall").significant
    assert any("not held against other items" in note and "score" in note for note in table.notes)
    (tmp_path / "answers.jsonl").unlink()
    table = compare(evaluations, by="overall", metric="score")
    assert table.cell("own", "overall").significant and not table.notes
    assert "eps_min < 0.2, over the seeds alone, confidence" in " ".join(render(table, "text").split())


def classified(seed, count, wrong):
    """Rows of three classes in three languages; those in `wrong` are answered with the next class."""
    for code in ("eng_Latn", "th", "vi"):
        for n in range(count):
            label, answer = n % 3, (n + (n in wrong)) % 3
            line = stack_line(code, str(n), label == answer, seed, overall=code != "eng_Latn")
            yield line | {"id": f"{code}/{n}", "label": label, "answer": answer}


@pytest.mark.parametrize("count", [6, 60])
def test_macro_f1_is_made_of_labels_and_answers(count, tmp_path):
    """What is drawn again is the number that the table shows, and few items carry no lead in it either."""
    shown = {}
    for name, modulus in (("own", 6), ("rival", 3)):
        runs, lines = [], []
        for seed in range(4):
            wrong = {n for n in range(count) if n % modulus == 1} | {seed}
            own = list(classified(seed, count, wrong))
            rows = [StackRow("x", line["language"], line["label"]) for line in own]
            judgement = judged(rows, [line["answer"] for line in own], 0.0)
            runs.append(SeedScores(seed, scores_of(judgement.per_language, "eng_Latn")))
            lines += [line | {"benchmark": "b", "subject": name} for line in own]
        shown[name] = sum(run.scores["overall"]["macro_f1"] for run in runs) / 4
        keep_evaluations([Evaluation(name, "m", {"name": "b"}, tuple(runs))], lines, tmp_path)
    sides = [f"{tmp_path}:{name}" for name in shown]
    found = resampled(
        *load_evaluations(sides), METRICS["macro_f1"], "overall", "overall", confidence=0.95, comparisons=1
    )
    assert found.difference == pytest.approx(shown["own"] - shown["rival"])
    cell = compare(load_evaluations(sides), metric="macro_f1").cell("own", "overall")
    assert cell.eps < 0.2 and cell.significant is (count == 60)
