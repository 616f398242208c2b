"""`dudi compare`: means and marks by hand, what is refused, the four formats, and what a command line names."""

import csv
import dataclasses
import io
import re
import subprocess
import sys

import pytest

from dudi.command import Parser, guarded
from dudi.comparison.load import load_evaluations
from dudi.comparison.render import render
from dudi.comparison.same import differences
from dudi.comparison.significance import aso
from dudi.comparison.table import compare
from dudi.errors import ConfigError, DataError
from dudi.evaluation.records import Evaluation, SeedScores, read_evaluations, write_evaluations
from dudi.languages.registry import LANGUAGES
from dudi.program import compare as verb

BENCHMARK = {
    "name": "cldr-qa-1",
    "part": "test",
    "tasks": ["currency", "units"],
    "languages": ["id", "th"],
    "limit": None,
    "questions": 480,
    "fingerprint": "c969f2b2d455baec4aece2b0be18e286fee53a4a041049a4741c3c8f68aa7b09",
    "decoding": {"temperature": 0.0, "max_new_tokens": 40},
    "cldr_version": "47",
}
LOW, HIGH = [0.10, 0.12, 0.14, 0.16], [0.50, 0.52, 0.54, 0.56]
A = [0.532, 0.496, 0.468, 0.534]  # better than B in all but the lowest score
B = [0.494, 0.492, 0.471, 0.510]


def evaluation(name="dudi", overall=LOW, *, metric="exact_match", benchmark=None, seeds=None, **languages):
    """An evaluation; each language is a list of scores over the seeds, None where one is missing."""
    seeds = list(range(len(overall))) if seeds is None else seeds
    runs = [
        SeedScores(
            seed,
            {
                "overall": {"questions": 480, metric: overall[place]},
                "by_language": {
                    code: {metric: values[place]} for code, values in languages.items() if values[place] is not None
                },
            },
        )
        for place, seed in enumerate(seeds)
    ]
    return Evaluation(name, f"runs/{name}/model", BENCHMARK | (benchmark or {}), tuple(runs))


def changed(one, **benchmark):
    return dataclasses.replace(one, benchmark={**one.benchmark, **benchmark})


def marks(comparison, column):
    """By method: `b`est, `s`econd, `d`iamond."""
    cells = {row.name: comparison.cell(row.name, column) for row in comparison.rows}
    return {name: "b" * cell.best + "s" * cell.second + "d" * cell.significant for name, cell in cells.items()}


@pytest.fixture
def three():
    return [
        evaluation("sft", LOW, id=LOW, th=HIGH),
        evaluation("gkd", B, id=B, th=B),
        evaluation("dudi", HIGH, id=HIGH, th=A),
    ]


# --- numbers and marks


def test_means_and_deviations_by_hand(three):
    comparison = compare(three)
    assert comparison.columns == ("id", "th", "overall")
    cell = comparison.cell("sft", "id")  # 10 12 14 16: mean 13, squares 9 + 1 + 1 + 9 over 3
    assert (cell.mean, cell.std, cell.n) == (pytest.approx(13), pytest.approx((20 / 3) ** 0.5), 4)
    assert [row.name for row in comparison.rows] == ["sft", "gkd", "dudi"]


def test_best_second_and_diamond(three):
    comparison = compare(three)
    assert marks(comparison, "id") == {"sft": "", "gkd": "s", "dudi": "b" + "d" * (eps_of(HIGH, B, 3) < 0.2)}
    assert len(comparison.duels) == 3
    best = comparison.cell("dudi", "id")
    assert (best.against, best.eps) == ("gkd", eps_of(HIGH, B, 3))
    assert comparison.cell("gkd", "id").eps is None


def test_a_lead_that_is_none_has_no_diamond():
    close = [evaluation("a", A, id=HIGH), evaluation("b", B, id=LOW)]
    comparison = compare(close)
    assert comparison.cell("a", "overall").eps == eps_of(A, B, 2) > 0.2
    assert marks(comparison, "overall") == {"a": "b", "b": "s"}
    assert marks(comparison, "id") == {"a": "bd", "b": "s"}
    assert comparison.cell("a", "id").eps == 0.0
    assert marks(compare(close, tau=1.0), "overall")["a"] == "bd"  # the bound is the reader's


def test_bonferroni_counts_the_tests_of_the_table():
    one, two = evaluation("a", A, id=A), evaluation("b", B, id=B)
    alone, both = compare([one, two], by="overall"), compare([one, two])
    assert (len(alone.duels), len(both.duels)) == (1, 2)
    assert alone.cell("a", "overall").eps == eps_of(A, B, 1)
    assert both.cell("a", "overall").eps == eps_of(A, B, 2) > eps_of(A, B, 1)
    assert compare([one, two], confidence=0.6).cell("a", "id").eps == eps_of(A, B, 2, 0.6)


def test_ties_share_a_place_and_lead_nobody():
    rows = [evaluation("a", HIGH), evaluation("b", HIGH[::-1]), evaluation("c", LOW), evaluation("d", LOW)]
    comparison = compare(rows, by="overall")
    assert marks(comparison, "overall") == {"a": "b", "b": "b", "c": "s", "d": "s"}
    assert not comparison.duels


def test_against_a_tie_both_must_be_beaten():
    same_mean = [0.30, 0.30, 0.73, 0.73]  # as high on average as 0.515 four times
    rows = [evaluation("a", HIGH), evaluation("b", [0.515] * 4), evaluation("c", same_mean)]
    cell = compare(rows, by="overall").cell("a", "overall")
    assert cell.against == "b, c"
    assert cell.eps == max(eps_of(HIGH, [0.515] * 4, 1), eps_of(HIGH, same_mean, 1)) > 0.2
    assert eps_of(HIGH, [0.515] * 4, 1) != eps_of(HIGH, same_mean, 1)


def test_missing_is_nowhere_and_never_zero():
    rows = [evaluation("a", HIGH, id=HIGH), evaluation("b", LOW, th=LOW), evaluation("c", A, id=LOW)]
    comparison = compare(rows)
    empty = comparison.cell("b", "id")
    assert (empty.mean, empty.std, empty.n, empty.best, empty.second) == (None, None, 0, False, False)
    assert marks(comparison, "id") == {"a": "bd", "b": "", "c": "s"}
    assert marks(comparison, "th") == {"a": "", "b": "", "c": ""}  # better than whom?
    assert len(comparison.duels) == 2


def test_a_seed_without_a_score_is_left_out_and_told():
    comparison = compare([evaluation("a", HIGH, id=[0.5, None, 0.7, None]), evaluation("b", LOW, id=LOW)])
    cell = comparison.cell("a", "id")
    assert (cell.mean, cell.n) == (pytest.approx(60), 2)
    assert comparison.notes == ("a: of 4 seeds, scores are there for id 2",)


def test_one_seed_has_no_deviation_no_diamond_and_a_note():
    comparison = compare([evaluation("a", [0.5], id=[0.4]), evaluation("b", [0.1], id=[0.2])])
    assert (comparison.cell("a", "id").std, comparison.cell("a", "id").eps) == (None, None)
    assert marks(comparison, "id") == {"a": "b", "b": "s"}
    assert not comparison.duels
    assert comparison.notes == ("Not tested, since a test needs 2 scores a side: a against b (id, overall)",)


def test_bits_per_byte_wants_the_lowest():
    rows = [
        evaluation("a", [0.30, 0.31], metric="bits_per_byte"),
        evaluation("b", [0.20, 0.21], metric="bits_per_byte"),
    ]
    comparison = compare(rows, by="overall")
    assert comparison.metric.better == -1
    assert marks(comparison, "overall") == {"a": "s", "b": "bd"}
    assert comparison.cell("b", "overall").mean == pytest.approx(0.205)  # shown as it is, not negated
    assert comparison.cell("b", "overall").eps == 0.0


@pytest.mark.parametrize(
    ("metric", "value", "shown", "best"),
    [("score", 9.7, 9.7, "b"), ("chrf", 76.4, 76.4, "b"), ("token_f1", 0.5, 50.0, "b"), ("seconds", 9.0, 9.0, "")],
)
def test_units_and_directions(metric, value, shown, best):
    rows = [evaluation("a", [value, value], metric=metric), evaluation("b", [value / 2] * 2, metric=metric)]
    comparison = compare(rows, by="overall", metric=metric)
    assert comparison.cell("a", "overall").mean == pytest.approx(shown)
    assert comparison.cell("a", "overall").best is bool(best)


@pytest.mark.parametrize("metric", ["length", "somebody_elses"])
def test_a_metric_without_a_direction_is_not_marked(metric):
    rows = [evaluation("a", HIGH, metric=metric), evaluation("b", LOW, metric=metric)]
    for candidate in (None, "a"):
        comparison = compare(rows, by="overall", candidate=candidate)
        assert marks(comparison, "overall") == {"a": "", "b": ""}
        assert not comparison.duels
    assert "Nothing is marked" in render(comparison, "text")


def test_the_default_metric_is_the_score_then_exact_match():
    def leaf(**values):
        return Evaluation("a", "a", {}, (SeedScores(0, {"overall": {"questions": 3, **values}}),))

    assert compare([leaf(chrf=1, score=2, exact_match=0.1)], by="overall").metric.name == "score"
    assert compare([leaf(chrf=1, exact_match=0.1)], by="overall").metric.name == "exact_match"
    assert compare([leaf(own=1.5)], by="overall").metric.name == "own"
    with pytest.raises(DataError, match="a: the scores hold no metric"):
        compare([leaf(chrf=None)], by="overall")


def test_the_papers_diamonds_belong_to_the_candidate():
    """Tables 2 and 3: in each language against the second best overall, also where another is the best."""
    rows = [evaluation("sft", LOW, id=HIGH, th=LOW), evaluation("gkd", B, id=LOW, th=LOW)]
    rows.append(evaluation("dudi", HIGH, id=[0.30, 0.31, 0.32, 0.33], th=[0.01] * 4))
    comparison = compare(rows, candidate="dudi")
    assert marks(comparison, "id") == {"sft": "b", "gkd": "", "dudi": "sd"}
    assert marks(comparison, "th") == {"sft": "b", "gkd": "b", "dudi": "s"}
    assert {comparison.cell("dudi", column).against for column in comparison.columns} == {"gkd"}
    assert comparison.cell("dudi", "th").eps == 1.0
    assert len(comparison.duels) == 3
    assert "dudi is better than gkd, the best other overall" in render(comparison, "text", width=200)


def test_a_reference_is_shown_and_neither_ranked_nor_tested():
    teacher = evaluation("teacher", [0.9], id=[0.9], seeds=[7])
    rows = [teacher, evaluation("sft", LOW, id=LOW), evaluation("dudi", HIGH, id=HIGH)]
    comparison = compare(rows, references=["teacher"])
    assert marks(comparison, "id") == {"teacher": "", "sft": "s", "dudi": "bd"}
    assert comparison.cell("teacher", "id").mean == pytest.approx(90)
    assert [row.reference for row in comparison.rows] == [True, False, False]
    assert compare(rows, references=["teacher"], candidate="dudi").cell("dudi", "id").against == "sft"
    with pytest.raises(ConfigError, match=r"^part differs"):  # its questions must be the same all the same
        compare([changed(teacher, part="validation"), *rows[1:]], references=["teacher"])
    with pytest.raises(ConfigError, match=r"^seeds: 'sft' also has 0; 'dudi' also has 4"):
        compare([teacher, rows[1], evaluation("dudi", HIGH, seeds=[1, 2, 3, 4])], references=["teacher"])


def test_delta_as_in_table_4():
    """Table 4: 10.1, and 9.6 without the verbalizer: -0.5, -5.0%."""
    rows = [evaluation("dudi", [10.1], metric="score"), evaluation("w/o verbalizer", [9.6], metric="score")]
    base, without = compare(rows, by="overall", baseline="dudi").rows
    assert (base.delta, base.percent) == (None, None)
    assert (without.delta, without.percent) == (pytest.approx(-0.5), pytest.approx(100 * -0.5 / 10.1))
    nothing = evaluation("zero", [0.0], metric="score")
    assert compare([nothing, rows[0]], by="overall", baseline="zero").rows[1].percent is None
    assert all(row.delta is None for row in compare(rows, by="overall").rows)


def test_columns_stand_in_the_papers_order():
    codes = list(LANGUAGES)
    comparison = compare([evaluation("a", [0.1], xx=[0.1], **{code: [0.1] for code in reversed(codes)})])
    assert comparison.columns == (*codes, "xx", "overall")
    splits = SeedScores(
        0, {"overall": {"chrf": 1}, "by_split": {key: {"chrf": 1} for key in ("unseen", "seen", "transfer")}}
    )
    own = Evaluation("a", "a", {"name": "cldr-qa-1"}, (splits,))
    assert compare([own], by="split").columns[:3] == ("seen", "transfer", "unseen")
    somebody_elses = dataclasses.replace(own, benchmark={"name": "questions"})  # as they come
    assert compare([somebody_elses], by="split").columns[:3] == ("unseen", "seen", "transfer")


def test_any_by_of_the_scores():
    run = SeedScores(0, {"overall": {"score": 1.0}, "by_competency": {"if": {"score": 2.0}, "nlu": {"score": 3.0}}})
    one = Evaluation("a", "a", {"name": "seahelm"}, (run,))
    assert compare([one], by="competency").columns == ("nlu", "if", "overall")
    with pytest.raises(ConfigError, match=r"by: .* 'by_competence'.*did you mean 'competency'"):
        compare([one], by="competence")


@pytest.mark.parametrize("wrong", ["much", float("nan"), float("inf"), [0.5]])
def test_a_score_that_is_no_number_is_refused(wrong):
    with pytest.raises(DataError, match=r"a: by_language\.id\.exact_match is not a finite number"):
        compare([evaluation("a", LOW, id=[0.1, 0.2, wrong, 0.3])])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "sfd"}, r"baseline: .* 'sfd' \(did you mean 'sft'\?\)"),
        ({"candidate": "xyz"}, "candidate: .* 'xyz'; there is sft, gkd, dudi"),
        ({"references": ["teacher"]}, "reference: .* 'teacher'"),
        ({"references": ["dudi"], "candidate": "dudi"}, "candidate: 'dudi' is a reference"),
        ({"metric": "exact"}, r"metric: .* 'exact' \(did you mean 'exact_match'"),
        ({"confidence": 1.0}, "confidence must be"),
        ({"tau": 0.0}, "tau must be"),
    ],
)
def test_wrong_options(three, options, message):
    with pytest.raises(ConfigError, match=message):
        compare(three, **options)


def test_names_are_needed_once():
    with pytest.raises(ConfigError, match="at least one"):
        compare([])
    with pytest.raises(ConfigError, match="two evaluations are called 'a'"):
        compare([evaluation("a"), evaluation("a")])


# --- what does not compare


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("name", "cldr-qa-2", "name differs: cldr-qa-1 in 'a', cldr-qa-2 in 'b'"),
        ("part", "validation", "part differs: test in 'a', validation in 'b'"),
        ("tasks", ["currency"], "tasks: 'a' also has units"),
        ("languages", ["id", "th", "my"], "languages: 'b' also has my"),
        ("limit", 10, "limit differs: none in 'a', 10 in 'b'"),
        ("questions", 479, "questions differs: 480 in 'a', 479 in 'b'"),
        ("fingerprint", "0" * 64, "fingerprint differs: c969f2b2d455… in 'a', 000000000000… in 'b'"),
        (
            "decoding",
            {"temperature": 0.7, "max_new_tokens": 40},
            "decoding.temperature differs: 0.0 in 'a', 0.7 in 'b'",
        ),
        ("own", "x", "own differs: none in 'a', x in 'b'"),
    ],
)
def test_each_key_is_refused_and_can_be_allowed(key, value, told):
    a, b = evaluation("a"), changed(evaluation("b"), **{key: value})
    with pytest.raises(ConfigError) as refused:
        compare([a, b], by="overall")
    assert str(refused.value) == f"{told}: not comparable, or add --allow-different {key}"
    for allowed in (key, "all"):
        comparison = compare([a, b], by="overall", allow_different=[allowed])
        assert comparison.differs == (told,)
        assert f"Not the same: {told}" in render(comparison, "text", width=300)
    with pytest.raises(ConfigError, match=re.escape(told)):
        compare([a, b], by="overall", allow_different=["seeds"])


@pytest.mark.parametrize("seeds", [[0, 1, 2, 4], [5, 6, 7, 8]])
def test_other_seeds_are_refused(seeds):
    with pytest.raises(ConfigError, match=r"^seeds: 'a' also has .*--allow-different seeds$"):
        compare([evaluation("a"), evaluation("b", seeds=seeds)], by="overall")
    comparison = compare([evaluation("a"), evaluation("b", seeds=seeds)], by="overall", allow_different=["seeds"])
    assert comparison.differs[0].startswith("seeds: 'a' also has")
    with pytest.raises(ConfigError, match=r"^seeds"):  # one greedy answer each, of models trained with other seeds
        compare([evaluation("a", [0.1], seeds=[0]), evaluation("b", [0.1], seeds=[1])], by="overall")


def test_the_first_difference_leads_and_the_others_are_named():
    other = changed(evaluation("b"), fingerprint="1" * 64, questions=9, languages=["id"])
    with pytest.raises(ConfigError) as refused:
        compare([evaluation("a"), other], by="overall")
    assert str(refused.value).startswith("languages: 'a' also has th (and questions, fingerprint): ")
    assert str(refused.value).endswith("--allow-different languages questions fingerprint")
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match=r"^questions"):
        compare([evaluation("a"), other], by="overall", allow_different=["languages", "fingerprint"])


def test_the_third_is_looked_at_too():
    with pytest.raises(ConfigError, match="in 'a', validation in 'c'"):
        compare([evaluation("a"), evaluation("b"), changed(evaluation("c"), part="validation")], by="overall")


def test_what_decides_nothing_may_differ():
    a = evaluation("a")
    assert not differences(a, changed(evaluation("b"), cldr_version="48", tasks=["units", "currency"]))
    assert not differences(a, dataclasses.replace(a, benchmark={k: v for k, v in BENCHMARK.items() if k != "limit"}))
    unknown = changed(evaluation("b"), cldr_version="48", fingerprint=None)
    assert [one.key for one in differences(changed(a, fingerprint=None), unknown)] == ["cldr_version"]
    about = dataclasses.replace(evaluation("b"), about={"torch": "1"}, model="elsewhere")
    assert not differences(a, about)


def test_a_dotted_key_allows_no_more_than_itself():
    other = changed(evaluation("b"), decoding={"temperature": 0.7, "max_new_tokens": 9})
    with pytest.raises(ConfigError, match=r"^decoding.max_new_tokens"):
        compare([evaluation("a"), other], by="overall", allow_different=["decoding.temperature"])
    assert len(compare([evaluation("a"), other], by="overall", allow_different=["decoding"]).differs) == 2
    warmer = changed(evaluation("b"), decoding={"temperature": 0.7, "max_new_tokens": 40})
    assert compare([evaluation("a"), warmer], by="overall", allow_different=["decoding.temperature"]).differs


def test_unknown_keys_get_a_suggestion():
    with pytest.raises(ConfigError, match=r"--allow-different: there is no key 'fingreprint' \(did you mean 'finger"):
        compare([evaluation("a")], by="overall", allow_different=["fingreprint"])


def test_long_values_are_shortened_around_the_difference():
    one, two = (changed(evaluation(name), template="x" * 200 + name + "y" * 200) for name in "ab")
    told = differences(one, two)[0].text
    assert len(told) < 150
    assert re.fullmatch(r"template differs: …x+ay+… in 'a', …x+by+… in 'b'", told)


# --- formats


@pytest.fixture
def small():
    rows = [evaluation("s|f_t", LOW, id=LOW), evaluation("A & B #1", HIGH, id=HIGH, th=[0.5, 0.5, 0.5, 0.5])]
    return compare(rows, baseline="s|f_t")


def test_text(small):
    assert render(small, "text", width=100, std=False) == (
        "Exact match in %; mean of 4 seeds; cldr-qa-1, test\n"
        "\n"
        "              id    th  overall      Δ      Δ %\n"
        "s|f_t     13.0+      –   13.0+       –        –\n"
        "A & B #1  53.0*◇  50.0   53.0*◇  +40.0  +307.7%\n"
        "\n"
    ) + "".join(line + "\n" for line in NOTES_TEXT)


NOTES_TEXT = [
    "*: best; +: second best",
    "◇: the best is better than the next best (ASO, eps_min < 0.2, over the seeds alone, confidence 0.95",
    "  over 2 tests)",
    "Δ: overall, less that of s|f_t; in % of it",
]


def test_markdown(small):
    assert render(small, "markdown") == "\n".join(
        [
            "Exact match in %; mean of 4 seeds; cldr-qa-1, test",
            "",
            "|  | Indonesian | Thai | overall | Δ | Δ % |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            r"| s\|f\_t | <ins>13.0 ± 2.6</ins> | – | <ins>13.0 ± 2.6</ins> | – | – |",
            r"| A &amp; B \#1 | **53.0 ± 2.6** ◇ | 50.0 ± 0.0 | **53.0 ± 2.6** ◇ | +40.0 | +307.7% |",
            "",
            "- Bold: best; underlined: second best",
            r"- ◇: the best is better than the next best (ASO, eps\_min &lt; 0.2, over the seeds alone, "
            "confidence 0.95 over 2 tests)",
            r"- Δ: overall, less that of s\|f\_t; in % of it",
            "",
        ]
    )


def test_latex(small):
    text = render(small, "latex", std=False)
    assert text.splitlines()[3:10] == [
        r"\begin{tabular}{lrrrrr}",
        r"\toprule",
        r" & Indonesian & Thai & overall & $\Delta$ & $\Delta$ \% \\",
        r"\midrule",
        r"s\textbar{}f\_t & \underline{13.0} & -- & \underline{13.0} & -- & -- \\",
        r"A \& B \#1 & \textbf{53.0}$^{\diamond}$ & 50.0 & \textbf{53.0}$^{\diamond}$ & $+$40.0 & $+$307.7\% \\",
        r"\bottomrule",
    ]
    assert r"\textless{} 0.2" in text


@pytest.mark.parametrize("name", [r"a\b{c}", "50% $x_1$ ~^", "Δ – ±", "plain"])
def test_latex_is_balanced_and_escaped(name):
    rows = [evaluation(name, HIGH, id=HIGH), evaluation("b", LOW, id=LOW)]
    text = render(compare(rows, baseline="b"), "latex", eps=True)
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[&%$#_{}]", "", body)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert not re.search(r"[%#~±Δ–◇]|(?<!\^)\^(?!\{)", bare)
    assert re.findall(r"\\begin{(\w+)}", body) == ["table", "tabular", "tabular"]
    assert re.findall(r"\\end{(\w+)}", body) == ["tabular", "tabular", "table"]
    for table in re.findall(r"\\begin{tabular}{(l.*?)}(.*?)\\end{tabular}", body, re.DOTALL):
        lines = [line for line in table[1].splitlines() if line.endswith(r"\\")]
        assert lines and {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(table[0])}


def test_csv(small):
    rows = list(csv.DictReader(io.StringIO(render(small, "csv"))))
    assert [(row["method"], row["column"]) for row in rows][:4] == [
        ("s|f_t", "id"),
        ("s|f_t", "th"),
        ("s|f_t", "overall"),
        ("A & B #1", "id"),
    ]
    missing, best = rows[1], rows[5]
    assert [missing[key] for key in ("mean", "std", "n", "eps", "against")] == ["", "", "0", "", ""]
    assert float(best["mean"]) == pytest.approx(53)
    assert float(best["std"]) == pytest.approx((20 / 3) ** 0.5)
    assert (best["n"], best["unit"], best["eps"], best["against"]) == ("4", "%", "0.0", "s|f_t")
    assert (best["best"], best["second"], best["significant"]) == ("1", "0", "1")
    assert float(best["delta"]) == pytest.approx(40) and rows[3]["delta"] == ""
    noted = compare([evaluation("a"), evaluation("b", seeds=[1, 2, 3, 4])], by="overall", allow_different=["all"])
    assert "seeds: 'a' also has 0" in next(csv.DictReader(io.StringIO(render(noted, "csv"))))["differs"]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1", "a\r=1"])
def test_no_cell_of_a_csv_is_a_formula(name):
    """A spreadsheet computes what begins like one, and a name can come from anybody; numbers stay numbers."""
    shown = "a =1" if name[0] == "a" else f"'{name.strip()}"
    runs = [evaluation(name, LOW, id=LOW), evaluation("b", HIGH, id=HIGH)]
    rows = list(csv.DictReader(io.StringIO(render(compare(runs, baseline="b"), "csv"), newline="")))
    assert {row["method"] for row in rows} == {shown, "b"}
    assert shown in {row["against"] for row in rows}
    assert not [value for row in rows for value in row.values() if value and value[0] in "=+@\t\r＝"]
    assert any(float(row["delta"]) < 0 for row in rows if row["delta"])


def test_what_differs_stands_in_every_format():
    a, b = evaluation("a"), changed(evaluation("b"), part="validation")
    comparison = compare([a, b], by="overall", allow_different=["part"])
    for name in ("text", "markdown", "latex", "csv"):
        assert "part differs: test in 'a', validation in 'b'" in render(comparison, name)


def test_eps_table():
    comparison = compare([evaluation("a", A, id=HIGH), evaluation("b", B, id=LOW)])
    text = render(comparison, "text", eps=True)
    assert re.search(r"^Indonesian +a +b +0\.000◇$", text, re.MULTILINE)
    assert re.search(rf"^overall +a +b +{eps_of(A, B, 2):.3f}$", text, re.MULTILINE)
    assert "eps_min\n" not in render(comparison, "text")
    assert f"| overall | a | b | {eps_of(A, B, 2):.3f} |" in render(comparison, "markdown", eps=True)


def test_eight_languages_fit_80_columns():
    rows = [
        evaluation(name, [high, high - 0.01], **{code: [high, high - 0.01] for code in LANGUAGES})
        for name, high in (("continued SFT", 0.5), ("cold start", 0.6), ("dudi", 0.99))
    ]
    comparison = compare(rows)
    text = render(comparison, "text")
    table = text.split("\n\n")[1].splitlines()
    assert max(map(len, text.splitlines())) <= 80
    assert table[0].split() == [*LANGUAGES, "overall"]
    assert [line.split() for line in table if line.startswith("dudi")] == [["dudi", *["98.5*◇"] * 9]]
    assert "±" not in text
    assert render(comparison, "text", width=140).count("±") == 27
    turned = render(comparison, "text", std=True)  # asked for, and too wide: languages become lines
    assert max(map(len, turned.splitlines())) <= 80
    assert re.search(r"^Thai .*98\.5 ± 0\.7\*◇$", turned, re.MULTILINE)
    assert "±" not in render(comparison, "text", width=140, std=False)


def test_no_number_is_ever_cut():
    rows = [evaluation(f"method {n}", [0.5 + n / 100] * 2, **{c: [0.99, 0.98] for c in LANGUAGES}) for n in range(6)]
    text = render(compare(rows), "text", width=20)
    assert "…" not in text
    assert text.count("98.5") == 6 * 8


def test_many_columns_become_lines():
    tasks = {f"id/task-{n}": {"score": float(n)} for n in range(20)}
    one = Evaluation("dudi", "m", {}, (SeedScores(0, {"overall": {"score": 1.0}, "by_task": tasks}),))
    assert "| id/task-3 | 3.0 |" in render(compare([one], by="task"), "markdown")
    assert re.search(r"^id/task-3 +3\.0$", render(compare([one], by="task"), "text"), re.MULTILINE)


def test_colour_is_bold_and_underline(small):
    text = render(small, "text", colour=True, std=False)
    assert "\x1b[1m53.0\x1b[0m◇" in text
    assert "\x1b[4m13.0\x1b[0m" in text
    assert "*" not in text
    assert "\x1b" not in render(small, "text")


def test_hostile_names_are_harmless():
    one = evaluation("[bold]x[/]\x1b[31m", HIGH, metric="chrf")
    one = dataclasses.replace(one, benchmark={"name": "\x1b]0;owned\x07"})
    text = render(compare([one], by="overall"), "text")
    assert "\x1b" not in text and "\x07" not in text
    assert "[bold]x[/]" in text


def test_signs_and_zero():
    rows = [evaluation("a", [0.5]), evaluation("b", [0.49999]), evaluation("c", [0.4])]
    text = render(compare(rows, by="overall", baseline="a"), "text")
    assert re.search(r"^b .*\+0\.0 +\+0\.0%$", text, re.MULTILINE)
    assert re.search(r"^c .*-10\.0 +-20\.0%$", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["text", "markdown", "latex"])
def test_a_score_of_zero_is_no_dash(name):
    comparison = compare([evaluation("a", [0.0], id=[0.0]), evaluation("b", [0.2])])
    line = next(line for line in render(comparison, name).splitlines() if re.match(r"\W*a\b", line))
    assert len(re.findall(r"\b0\.0\b", line)) == 2
    empty = next(line for line in render(comparison, name).splitlines() if re.match(r"\W*b\b", line))
    assert "–" in empty or "--" in empty


def test_unknown_format(small):
    with pytest.raises(ConfigError, match=r"'markdwn' is not one of .*did you mean 'markdown'"):
        render(small, "markdwn")


# --- what the command line names


def leaf(value):
    scores = {"questions": 480, "exact_match": value, "chrf": None, "bits_per_byte": 0.2}
    return {"overall": scores, "by_language": {"id": scores}}


@pytest.fixture
def make_run(tmp_path):
    def make(name, seed=0, value=0.5, method="dudi", **benchmark):
        folder = tmp_path / name
        folder.mkdir()
        recipe = (
            f"student:\n  model: package:base  # default\nmethod: {method}  # recipe x:1\nseed: {seed}  # default\n"
        )
        (folder / "resolved.yaml").write_text(recipe, encoding="utf-8")
        subjects = {"base": 0.01, "cold_start": value / 2, "student": value, "teacher": 0.9}
        models = {"base": "package:base", "student": f"{folder}/model"}
        about = {"method": method, "guessing": leaf(0.1)}
        found = [
            Evaluation(
                method if subject == "student" else subject.replace("_", " "),
                models.get(subject, subject),
                BENCHMARK | benchmark,
                (SeedScores(seed, leaf(score)),),
                about,
                subject,
            )
            for subject, score in subjects.items()
        ]
        write_evaluations(found, folder / "evaluation.json")
        return folder

    return make


def test_a_run_folder_is_its_student(make_run):
    (one,) = load_evaluations([str(make_run("r", seed=3))])
    assert (one.name, one.seeds, one.values("exact_match", "overall")) == ("dudi", [3], [0.5])
    assert one.benchmark["fingerprint"] == BENCHMARK["fingerprint"]
    assert one.model.endswith("r/model")


@pytest.mark.parametrize(
    ("subject", "name", "value"),
    [("cold_start", "cold start", 0.25), ("teacher", "teacher", 0.9), ("base", "base", 0.01), ("floor", "floor", 0.1)],
)
def test_other_subjects_of_a_run(make_run, subject, name, value):
    (one,) = load_evaluations([f"{make_run('r')}:{subject}"])
    assert (one.name, one.values("exact_match", "overall")) == (name, [value])
    assert one.values("chrf", "overall") == []
    assert subject != "base" or one.model == "package:base"


def test_seeds_join_under_a_name(make_run):
    folders = [make_run(f"d{seed}", seed=seed, value=seed / 10) for seed in (2, 0, 1)]
    for word in (f"DuDi={','.join(map(str, folders))}", f"DuDi={folders[0].parent}/d*"):
        (one,) = load_evaluations([word])
        assert (one.name, one.seeds, one.values("exact_match", "overall")) == ("DuDi", [0, 1, 2], [0.0, 0.1, 0.2])
    assert load_evaluations([f"{folders[0].parent}/d*"])[0].name == "dudi"
    assert load_evaluations([f"{folders[0].parent}/d*:teacher"])[0].values("exact_match", "overall") == [0.9] * 3


def test_names_may_hold_a_slash_and_paths_an_equals_sign(make_run):
    folder = make_run("lr=1e-3")
    named, plain = load_evaluations([f"w/o sequence={folder}", str(folder)])
    assert (named.name, plain.name) == ("w/o sequence", "dudi")


def test_equal_names_become_those_of_the_folders(make_run):
    one, two = make_run("short"), make_run("long")
    assert [e.name for e in load_evaluations([str(one), f"{two}/evaluation.json"])] == ["short", "long"]
    assert [e.name for e in load_evaluations([f"{one}:teacher", f"{two}:teacher"])] == ["short:teacher", "long:teacher"]
    assert [e.name for e in load_evaluations([f"dudi={one}", str(two)])] == ["dudi", "long"]
    with pytest.raises(ConfigError, match="are both called 'a'"):
        load_evaluations([f"a={one}", f"a={two}"])
    with pytest.raises(ConfigError, match="are both called 'short'"):
        load_evaluations([str(one), str(one)])


def test_a_metric_is_marked_as_its_task_says():
    two = [evaluation("a", LOW, metric="ter,strict", id=LOW), evaluation("b", HIGH, metric="ter,strict", id=HIGH)]
    assert compare(two).metric.better == 0 and marks(compare(two), "id") == {"a": "", "b": ""}
    told = [dataclasses.replace(one, about={"better": {"ter,strict": -1}}) for one in two]
    assert marks(compare(told), "id") == {"a": "bd", "b": "s"}
    assert compare([two[0], told[1]]).metric.better == -1
    broken = [dataclasses.replace(one, about={"better": {"ter,strict": "down"}}) for one in two]
    assert compare(broken).metric.better == 0


def test_a_metric_behind_a_filter_is_the_metric():
    two = [evaluation("a", LOW, metric="exact_match,strict-match", id=LOW), evaluation("b", HIGH, id=HIGH)]
    shown = compare(two[:1]).metric
    assert (shown.better, shown.unit, shown.title) == (1, "%", "Exact match (strict-match) in %")
    assert shown.short == "exact (strict-match), %" and compare(two[:1]).cell("a", "id").mean == pytest.approx(13)


def test_evaluation_files(tmp_path):
    file = write_evaluations([evaluation("dudi", HIGH)], tmp_path / "e" / "evaluation.json")
    assert load_evaluations([str(file)]) == load_evaluations([str(file.parent)]) == [evaluation("dudi", HIGH)]
    write_evaluations([evaluation("other", LOW, seeds=[8, 9, 6, 7])], tmp_path / "f" / "evaluation.json")
    with pytest.raises(ConfigError, match="have different names; write NAME="):
        load_evaluations([f"{tmp_path}/e,{tmp_path}/f"])
    assert load_evaluations([f"both={tmp_path}/e,{tmp_path}/f"])[0].seeds == [0, 1, 2, 3, 6, 7, 8, 9]


def test_greedy_evaluations_of_several_models_take_the_trainings_seeds(make_run, tmp_path):
    for seed in (4, 5):
        folder = make_run(f"r{seed}", seed=seed)
        one = dataclasses.replace(evaluation("model", [seed / 10], seeds=[0]), model=f"{folder}/model")
        write_evaluations([one], tmp_path / f"e{seed}" / "evaluation.json")
    (joined,) = load_evaluations([f"dudi={tmp_path}/e*"])
    assert (joined.seeds, joined.values("exact_match", "overall")) == ([4, 5], [0.4, 0.5])


def test_what_does_not_join(make_run, tmp_path):
    a, same, sft = make_run("a"), make_run("same"), make_run("sft", seed=1, method="sft")
    other = make_run("other", seed=2, part="validation")
    with pytest.raises(ConfigError, match=r"a and .*same both have seed 0"):
        load_evaluations([f"x={a},{same}"])
    with pytest.raises(ConfigError, match="one is of dudi, the other of sft"):
        load_evaluations([f"x={a},{sft}"])
    with pytest.raises(ConfigError, match="one is of student, the other of teacher"):
        load_evaluations([f"x={a},{same}:teacher"])
    with pytest.raises(ConfigError, match=r"^part differs: test in .*a', validation in .*other'"):
        load_evaluations([f"x={a},{other}"])


def test_what_is_not_there(make_run, tmp_path):
    folder = make_run("r")
    cases = {
        str(tmp_path / "none"): "none: there is no such run folder",
        f"x={tmp_path}/none": "none: there is no such run folder",
        f"{folder},{tmp_path}/none": "there is no such run folder",
        f"{tmp_path}/z*": r"z\*: there is no such run folder",
        f"={folder}": "write the name before '='",
        str(tmp_path): "holds no evaluation.json",
        f"{folder}:techer": r"no subject 'techer' \(did you mean 'teacher'\?\)",
        f"{tmp_path}:teacher": "holds no evaluation.json",
        "": "there is no such run folder",
    }
    for word, message in cases.items():
        with pytest.raises(ConfigError, match=message):
            load_evaluations([word])


def test_a_file_of_several_benchmarks_or_models(make_run, tmp_path):
    folder = make_run("r")
    file = folder / "evaluation.json"
    other = dataclasses.replace(evaluation("dudi", [0.9], seeds=[0]), benchmark={"name": "mine"}, subject="student")
    write_evaluations([*read_evaluations(file), other], file)
    with pytest.raises(ConfigError, match=r"holds cldr-qa-1, mine; choose with --benchmark NAME"):
        load_evaluations([str(folder)])
    (one,) = load_evaluations([str(folder)], "mine")
    assert one.values("exact_match", "overall") == [0.9]
    with pytest.raises(ConfigError, match=r"did you mean 'mine'"):
        load_evaluations([str(folder)], "mein")
    write_evaluations([evaluation("a"), evaluation("b")], tmp_path / "two.json")
    with pytest.raises(ConfigError, match=r"holds several models; write .*two.json:NAME, of a, b"):
        load_evaluations([f"{tmp_path}/two.json"])
    assert load_evaluations([f"{tmp_path}/two.json:b"])[0].name == "b"


def test_broken_files(make_run, tmp_path):
    recipe = make_run("r") / "resolved.yaml"
    greedy = [dataclasses.replace(evaluation("m", [0.1], seeds=[0]), model=f"{recipe.parent}/model") for _ in "ab"]
    for name, one in zip("ab", greedy, strict=True):
        write_evaluations([one], tmp_path / name / "evaluation.json")
    for text in ("seed: [", "- 1", "seed: one", "method: dudi", "seed: true", "\x00"):
        recipe.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=r"resolved\.yaml"):
            load_evaluations([f"{tmp_path}/a,{tmp_path}/b"])
    recipe.write_text("method: dudi\nseed: [\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"resolved\.yaml:3: not valid YAML"):
        load_evaluations([f"{tmp_path}/a,{tmp_path}/b"])
    (tmp_path / "a" / "evaluation.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"evaluation\.json"):
        load_evaluations([str(tmp_path / "a")])


# --- the verb


def words(*given):
    parser = Parser("dudi compare")
    verb.add_arguments(parser)
    return parser.parse_intermixed_args(list(map(str, given)))


def call(*given):
    return guarded(lambda: verb.run(words(*given)), False)


def test_runs_from_the_command_line(make_run, capsys):
    for seed in (0, 1):
        make_run(f"dudi-{seed}", seed, 0.5 + seed / 100)
        parent = make_run(f"sft-{seed}", seed, 0.4 + seed / 100, method="sft").parent
    given = [f"SFT={parent}/sft-*", f"{parent}/dudi-*", "--by", "overall", "--baseline", "SFT"]
    assert call(*given) == 0
    out = capsys.readouterr().out
    assert re.search(r"^dudi +50\.5 ± 0\.7\*◇ +\+10\.0 +\+24\.7%$", out, re.MULTILINE)
    assert call(f"{parent}/dudi-0", f"{parent}/dudi-0:teacher", "--reference", "teacher", "--metric", "chrf") == 2
    assert "metric: the scores have no 'chrf'" in capsys.readouterr().err


def test_refusal_and_permission(make_run, capsys):
    a, b = make_run("a"), make_run("b", method="sft", decoding={"temperature": 0.0, "max_new_tokens": 9}, seed=1)
    assert call(a, b) == 2
    err = capsys.readouterr().err
    told = "decoding.max_new_tokens differs: 40 in 'dudi', 9 in 'sft'"
    assert err == f"error: {told} (and seeds): not comparable, or add --allow-different decoding seeds\n"
    assert (
        call(a, b, "--allow-different", "decoding,seeds") == call(a, b, "--allow-different", "decoding", "seeds") == 0
    )
    assert told in capsys.readouterr().out
    assert call(a, b, "--allow-different", "decodng") == 2
    assert "did you mean 'decoding'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "start"), [("t.md", "Exact"), ("t.TEX", "% needs"), ("t.csv", "method,"), ("t.txt", "Exact")]
)
def test_output_follows_the_suffix(make_run, tmp_path, capsys, name, start):
    file = tmp_path / name
    assert call(make_run("a"), make_run("b", method="sft"), "--output", file) == 0
    assert file.read_text(encoding="utf-8").startswith(start)
    assert capsys.readouterr().out == f"{file}\n"


def test_format_wins_and_wrong_ones_are_refused(make_run, tmp_path, capsys):
    a = make_run("a")
    assert call(a, "--output", tmp_path / "t.md", "--format", "csv") == 0
    assert (tmp_path / "t.md").read_text(encoding="utf-8").startswith("method,")
    assert call(a, "--output", tmp_path / "t.pdf") == call(a, "--format", "htm") == 2
    assert not (tmp_path / "t.pdf").exists()
    assert call(a, "--output", a / "evaluation.json" / "t.md") == 2
    (a / "evaluation.json").write_text("{", encoding="utf-8")
    capsys.readouterr()
    assert call(a) == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_options_reach_the_comparison(make_run, capsys):
    for seed in (0, 1):
        make_run(f"a{seed}", seed, 0.5 + seed / 100)
        parent = make_run(f"b{seed}", seed, 0.4 + seed / 100, method="sft").parent
    given = [f"a={parent}/a*", f"b={parent}/b*", "--by", "overall"]
    assert call(*given, "--candidate", "b", "--eps", "--tau", "0.3", "--confidence", "0.9", "--no-std") == 0
    out = capsys.readouterr().out
    assert "±" not in out
    assert "b is better than a" in out and "eps_min < 0.3, confidence 0.9 over 1 test" in " ".join(out.split())
    assert re.search(r"^overall +b +a +1\.000$", out, re.MULTILINE)


def test_importing_and_running_need_no_torch(make_run):
    folder = make_run("a")
    code = (
        "import argparse, sys\n"
        "from dudi.program import compare\n"
        "parser = argparse.ArgumentParser()\n"
        "compare.add_arguments(parser)\n"
        "light = not {'numpy', 'rich', 'yaml'} & set(sys.modules)\n"
        f"compare.run(parser.parse_args([{str(folder)!r}]))\n"
        "sys.exit(0 if light and not {'torch', 'transformers', 'datasets', 'babel'} & set(sys.modules) else 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "50.0" in done.stdout


def eps_of(a, b, tests, confidence=0.95):
    return aso([100 * x for x in a], [100 * x for x in b], confidence, comparisons=tests)


def test_a_candidate_is_tested_against_each_rival_that_is_named():
    """All tests count together, the mark is for who beats them all, and the table of tests has a line a rival."""
    rows = [evaluation("sft", LOW, id=LOW), evaluation("gkd", B, id=LOW), evaluation("dft", HIGH, id=LOW)]
    rows.append(evaluation("dudi", A, id=HIGH))
    comparison = compare(rows, candidate="dudi", rivals=["sft", "gkd"])
    assert [(duel.column, duel.against) for duel in comparison.duels] == [
        ("id", "sft"), ("id", "gkd"), ("overall", "sft"), ("overall", "gkd"),
    ]  # fmt: skip
    by_pair = {(duel.column, duel.against): duel for duel in comparison.duels}
    assert by_pair["overall", "gkd"].eps == eps_of(A, B, 4) > 0.2 > by_pair["overall", "sft"].eps
    assert by_pair["overall", "gkd"].difference == pytest.approx(100 * (sum(A) - sum(B)) / 4)
    cell = comparison.cell("dudi", "overall")
    assert (cell.against, cell.eps, cell.significant) == ("gkd", eps_of(A, B, 4), False)
    assert comparison.cell("dudi", "id").significant and marks(comparison, "id")["dft"] == "s"
    text = render(comparison, "text", eps=True, width=200)
    assert "dudi is better than each of sft, gkd (ASO" in text and "over 4 tests" in text
    assert re.search(r"less gkd +\+40\.0 \(0\.000\)◇ +\+1\.6 \(", text)


@pytest.mark.parametrize(
    ("candidate", "rivals", "wrong"),
    [
        (None, ["sft"], "rivals: of whom"),
        ("dudi", ["dudi"], "rivals: 'dudi' is the candidate itself"),
        ("dudi", ["teacher"], "rivals: 'teacher' is a reference"),
        ("dudi", ["stf"], "rival: no evaluation is called 'stf' .did you mean 'sft'"),
    ],
)
def test_rivals_are_others_that_are_tested(candidate, rivals, wrong):
    rows = [evaluation("teacher", HIGH), evaluation("sft", LOW), evaluation("dudi", HIGH)]
    with pytest.raises(ConfigError, match=wrong):
        compare(rows, candidate=candidate, rivals=rivals, references=["teacher"])
