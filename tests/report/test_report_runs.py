"""Several runs in one report: which belong together, how they compare, what they cost, where their values come from."""

import argparse
import json
import xml.etree.ElementTree as ET

import pytest

from dudi.errors import ConfigError
from dudi.program.report import add_arguments, run
from dudi.report import answers, compared, samples, write_report
from dudi.report.cost import cost_table, phase_bars, phase_lines, phase_table
from dudi.report.figures import lines_of, sections
from dudi.report.groups import differing, grouped
from dudi.report.run_folder import points, read_run, read_runs
from dudi.report.settings import read_settings
from report_helpers import SHARES, answer, metrics, page_of, sample


@pytest.fixture
def study(make_asked):
    """Three seeds of dudi, all better than three seeds of sft."""

    def build(count=3):
        runs = []
        for seed in range(count):
            for method, share in (("dudi", 0.5), ("sft", 0.2)):
                shares = SHARES | {"student": share + 0.01 * seed, "cold_start": 0.1 + 0.01 * seed}
                runs.append(make_asked(f"{method}-{seed}", method=method, shares=shares, seed=seed))
        return runs

    return build


def lines_in(grid):
    return {line.label: line.entries for line in grid.lines}


def groups_of(runs):
    return grouped(read_runs(runs))


def loaded(folder):
    return read_runs([folder])[0]


# --- which runs belong together


def test_runs_that_differ_by_their_seed_alone_are_one_group(make):
    runs = [make("a", seed=2), make("b", method="gkd"), make("c", seed=0), make("d", seed=1)]
    first, second = groups_of(runs)
    assert (first.label, first.seeds, [run.name for run in first.runs]) == ("dudi", ["0", "1", "2"], ["c", "d", "a"])
    assert (first.described, second.described) == ("dudi, seeds 0 to 2", "gkd")
    assert (first.colour, second.colour) == (0, 1)


def test_other_values_make_another_group_with_the_value_in_its_name(make):
    runs = [
        make("a"),
        make("b", more="alpha: 0.5  # command line\n"),
        make("c", more="alpha: 0.2  # recipe r.yaml:1\n"),
    ]
    groups = groups_of(runs)
    assert [group.label for group in groups] == ["dudi", "dudi, alpha 0.5", "dudi, alpha 0.2"]
    assert differing([group.runs[0] for group in groups]) == {"alpha": ["", "0.5", "0.2"]}


@pytest.mark.parametrize("line", ["run_name: other", "logging_steps: 7", "data_seed: 5", "benchmark: null"])
def test_names_and_logging_make_no_other_group(make, line):
    other = make("b", seed=1) / "resolved.yaml"
    text = other.read_text().replace("run_name: 'a # b'  # command line\n", "")  # a key is there once
    other.write_text(f"{text}{line}  # command line\n")
    assert len(groups_of([make("a"), other.parent])) == 1


def test_the_same_seed_twice_is_told_apart_by_its_folder(make):
    (group,) = groups_of([make("a"), make("b")])
    assert group.seeds == ["a", "b"]


def test_runs_without_a_recipe_stand_alone(make):
    groups = groups_of([make(name, without=("resolved.yaml",)) for name in ("a", "b")])
    assert [group.label for group in groups] == ["a", "b"]


# --- origins


def test_the_command_tells_base_files_from_the_recipe():
    text = "method: dudi  # recipe recipes/mini/dudi.yaml:3\nalpha: 1  # recipe recipes/base/mini.yaml:7\n"
    told = read_settings(text, ["dudi", "train", "mini/dudi", "seed=1"])
    assert [setting.source for setting in told] == [
        "recipe recipes/mini/dudi.yaml:3",
        "base file recipes/base/mini.yaml:7",
    ]
    for command in (None, "dudi train mini/dudi", ["dudi", "train"], ["dudi", "quickstart", "mini/dudi"]):
        assert not any(setting.base for setting in read_settings(text, command))
    own = read_settings("a: 1  # recipe my/own.yaml:1\nb: 2  # recipe base.yaml:2\n", ["dudi", "train", "my/own.yaml"])
    assert [setting.base for setting in own] == [False, True]


# --- the benchmark over seeds


def test_a_lead_that_holds_over_the_seeds_has_a_diamond(study):
    runs = study()
    found = compared.compared(groups_of(runs))
    split, language, everything = found.compared
    assert language.grid.columns == ("Indonesian", "Burmese", "overall")
    lines = lines_in(language.grid)
    assert list(lines) == ["dudi", "sft", "guessing", "base", "cold start", "teacher"]
    assert [cell.text for cell in lines["dudi"]] == ["51.0 ± 1.0", "25.5 ± 0.5", "51.0 ± 1.0"]
    assert all(cell.best and cell.diamond for cell in lines["dudi"])
    assert all(cell.second and not cell.diamond for cell in lines["sft"])
    assert lines["cold start"][-1].text == "11.0 ± 1.0"
    assert lines["teacher"][-1].text == "70.0"
    assert [cell.text for cell in language.tests.lines[0].entries] == ["dudi", "sft", "0.000"]
    assert split.grid.columns[:3] == ("seen", "transfer", "unseen")
    assert not any(cell.diamond for cells in lines_in(everything.grid).values() for cell in cells)
    assert lines_in(everything.grid)["dudi"][-1].best  # of bits per byte less is better
    assert [(line.kind, line.colour) for line in split.grid.lines[:3]] == [("", 0), ("", 1), ("faint", None)]
    text = page_of(*runs).text
    assert "51.0 ± 1.0 ◇" in text
    assert "ASO, eps_min < 0.2" in text


def test_single_runs_have_no_diamond_and_the_page_says_why(study):
    text = page_of(*study(1)).text
    assert "◇" not in text
    assert "Not tested, since a test needs 2 scores a side: dudi against sft" in text


def test_runs_that_were_asked_other_questions_do_not_compare(make_asked):
    other = make_asked("two", method="gkd", asked={"fingerprint": "f" * 64})
    found = compared.compared(groups_of([make_asked("one"), other]))
    assert "were not asked the same: fingerprint differs" in found.words
    cells = [cell for table in found.compared for line in table.grid.lines for cell in line.entries]
    assert not any(cell.best or cell.second or cell.diamond for cell in cells)


def test_other_seeds_compare_and_are_said(make_asked):
    found = compared.compared(groups_of([make_asked("one"), make_asked("two", method="gkd", seed=5)]))
    assert found.words == ""
    assert any("seeds" in remark for remark in found.compared[0].remarks)


def test_a_seed_that_is_there_twice_counts_once(make_asked):
    runs = [make_asked("one"), make_asked("copy"), make_asked("two", seed=1, shares=SHARES | {"student": 0.5})]
    (group,) = groups_of(runs)
    assert compared.evaluation_of(group).seeds == [0, 1]
    assert "dudi: seed 0 is there more than once and counts once" in compared.compared([group]).compared[0].remarks


def test_scores_that_are_no_numbers_are_dashes(make_asked):
    folder = make_asked("one")
    result = json.loads((folder / "evaluation.json").read_text())
    scores = next(one for one in result["evaluations"] if one["subject"] == "student")["runs"][0]["scores"]
    scores["by_language"]["id"]["exact_match"] = "much"
    scores["overall"]["exact_match"] = float("nan")
    (folder / "evaluation.json").write_text(json.dumps(result))
    found = compared.compared(groups_of([folder, make_asked("two", method="gkd")]))
    assert [cell.text for cell in lines_in(found.compared[1].grid)["dudi"]] == ["–", "15.5", "–"]


def test_a_run_without_a_result_is_named(make_asked, make):
    runs = [
        make_asked("one"),
        make_asked("gone", method="gkd", without=("evaluation.json",)),
        make("bare", method="sft"),
    ]
    text = page_of(*runs).text
    assert "Not measured in gone: the recipe asks for a benchmark" in text
    assert "No benchmark was asked for in bare" in text


# --- charts


def test_runs_of_a_group_share_a_colour_and_have_a_mean(make):
    shifted = [record | {"loss": record["loss"] + 2} for record in metrics()]
    runs = [make("a"), make("b", seed=1, records=shifted), make("c", method="gkd")]
    series = lines_of(groups_of(runs), lambda one: points(one.stage(cold=False), "loss"))
    assert [(line.label, line.colour, line.dash, line.weight) for line in series] == [
        ("dudi, seed 0", 0, 0, "thin"),
        ("dudi, seed 1", 0, 1, "thin"),
        ("dudi, mean of 2", 0, 0, "thick"),
        ("c", 1, 0, "normal"),
    ]
    first, second, mean = (dict(line.points) for line in series[:3])
    assert all(mean[step] == pytest.approx((first[step] + second[step]) / 2) for step in first)


def test_a_mean_lies_between_lines_with_points_at_other_steps(make):
    runs = [
        make(name, seed=seed, records=[{"stage": "dudi", "step": s, "loss": float(s + 2 * seed)} for s in steps])
        for seed, (name, steps) in enumerate((("a", (1, 3, 5)), ("b", (2, 4))))
    ]
    mean = lines_of(groups_of(runs), lambda one: points(one.stage(cold=False), "loss"))[-1]
    assert list(mean.points) == [(2, 3.0), (3, 4.0), (4, 5.0)]


def test_figures_lie_beside_the_page_as_svg(make_asked, tmp_path):
    folder = make_asked()
    write_report([folder])
    names = {file.name for file in (folder / "figures").iterdir()}
    assert {"overlap-ratio.svg", "entropies.svg", "time-by-phase.svg", "answered-exactly-by-language.svg"} <= names
    assert len(names) == 17
    assert all(ET.parse(folder / "figures" / name).getroot().get("aria-label") for name in names)
    write_report([folder, make_asked("two", method="gkd")], tmp_path / "both.html")
    legend = (tmp_path / "both-figures" / "overlap-ratio.svg").read_text(encoding="utf-8")
    assert ">dudi</text>" in legend
    assert ">gkd</text>" in legend


def test_a_figure_that_has_nothing_to_show_any_more_is_removed(make):
    folder = make()
    write_report([folder])
    (folder / "metrics.jsonl").write_text('{"stage": "dudi", "step": 1, "loss": 2.0}\n')
    write_report([folder])
    assert {file.name for file in (folder / "figures").iterdir()} == {"weighted-sum.svg"}


def test_every_figure_has_a_file_of_its_own(make):
    for runs in ([make("a")], [make("b"), make("c", method="gkd")]):
        files = [figure.file for section in sections(groups_of(runs)) for figure in section.figures]
        assert len(set(files)) == len(files)


def test_evaluations_have_charts_where_a_run_has_them(make):
    plain, evaluated = make("a"), make("b")
    lines = [{"stage": "dudi", "step": step, "eval_loss": 3 - step, "eval_bits_per_byte": 1.5} for step in (1, 2)]
    lines.append({"stage": "cold_start", "step": 1, "eval_loss": 9.0})
    (evaluated / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "Evaluation during training" not in " ".join(page_of(plain).texts)
    assert "Evaluation during training" in " ".join(page_of(evaluated).texts)
    section = next(s for s in sections(groups_of([evaluated])) if s.title == "Evaluation during training")
    assert section.figures[0].chart.series[0].points == [(1, 2), (2, 1)]


# --- cost


def test_cost_sums_the_phases_and_the_rest(make):
    table = cost_table(groups_of([make()]))
    assert table.columns == (
        "cold start",
        "rollout",
        "teacher",
        "reference",
        "student",
        "rest",
        "total",
        "tokens / s",
        "peak memory",
    )
    assert tuple(entry.text for entry in table.lines[0].entries) == (
        *("5.0 s", "1 min 30 s", "30.0 s", "15.0 s", "45.0 s", "30.0 s", "3 min 35 s"),
        *("1234", "3.00 GiB"),
    )


def test_cost_over_seeds_and_of_cached_stages(make):
    slow = [record | {"time/rollout": 5.0, "time/step": 9.0} for record in metrics()]
    cached = [record | {"cached": True} for record in metrics() if record["stage"] == "cold_start"]
    runs = [make("a"), make("b", seed=1, records=slow), make("c", method="gkd", records=cached)]
    both, other = cost_table(groups_of(runs)).lines
    assert both.label == "dudi, seeds 0 and 1"
    assert both.entries[1].text == "2 min 00 s ± 42.4 s"
    assert other.entries[0].text == "cached"
    assert other.entries[6].text == "–"
    first, second = phase_bars(groups_of(runs))[0], phase_bars(groups_of([make("d", without=("metrics.jsonl",))]))
    assert dict(first.parts)["rollout"] == pytest.approx(4.0)
    assert second == []


def test_where_a_step_goes(make):
    counted = [record | {"flops/rollout": 6e9, "flops/teacher": 25e9} for record in metrics()]
    run = make("a", records=counted)
    environment = json.loads((run / "env.json").read_text()) | {"product_flops": 25e9, "processes": 2}
    (run / "env.json").write_text(json.dumps(environment))
    table = phase_table(groups_of([run]))
    cells = {line.label: tuple(entry.text for entry in line.entries) for line in table.lines}
    assert cells["rollout"] == ("3.00", "43%", "6.0", "2.0", "4%")
    assert cells["teacher"] == ("1.00", "14%", "25.0", "25.0", "50%")
    assert cells["student"] == ("1.50", "21%", "–", "–", "–")
    assert phase_lines(loaded(run)) == [
        "time     rollout 43%, teacher 14%, reference 7%, student 21%, rest 14%",
        "GFLOP/s  rollout 2, teacher 25; a matrix product 50",
    ]


def test_nobody_measured_the_cost(make):
    bare = make(without=("metrics.jsonl",))
    assert cost_table(groups_of([bare])) is phase_table(groups_of([bare])) is None
    assert phase_lines(loaded(bare)) == []


# --- answers and samples side by side


def test_answers_of_methods_stand_beside_each_other(make_asked):
    def records(who):
        for subject in ("base", "cold_start", "student", "teacher"):
            yield answer(subject, "q", "seen", exact=True, answer=f"{subject} of {who}")

    runs = [make_asked(name, method=name, records=list(records(name))) for name in ("dudi", "gkd")]
    (card,) = answers.choose(groups_of(runs)).cards
    assert [(one.title, one.text, one.colour) for one in card.answers] == [
        ("cold start", "cold_start of dudi", None),
        ("dudi", "student of dudi", 0),
        ("gkd", "student of gkd", 1),
        ("teacher", "teacher of dudi", None),
    ]
    text = page_of(*runs).text
    assert "prompt question q ground truth reference q cold start ✓ right" in text


def test_many_methods_show_fewer_samples_each(make):
    many = [sample(step=step) for step in range(50)]
    runs = [make(name, method=name, samples=many) for name in ("dudi", "gkd", "sdft", "spin")]
    chosen, total = samples.choose(groups_of(runs))
    assert (len(chosen), total) == (4 * samples.PER_LANGUAGE // 4, 200)


def test_everything_is_there_without_the_script(make_asked):
    page = page_of(make_asked("one"), make_asked("two", method="gkd"))
    assert not any("hidden" in attributes for attributes in page.all("article"))
    assert all("hidden" in attributes for name, attributes in page.elements if attributes.get("class") == "filter")


# --- what was run


def test_shared_facts_are_said_once_and_differences_by_method(make):
    text = page_of(make("one"), make("two", method="gkd")).text
    assert text.count("NVIDIA H200") == 1
    assert "method dudi gkd" in text
    assert "Student, all runs Qwen/Qwen2.5-0.5B" in text


# --- the verb


def test_the_verb_writes_a_page_above_several_runs_and_keeps_each_runs_own(make, tmp_path, capsys):
    runs = [make("a"), make("b", method="gkd")]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args([str(runs[0])])) == 0
    own = (runs[0] / "report.html").read_text(encoding="utf-8")
    assert run(parser.parse_args([str(one) for one in runs])) == 0
    assert capsys.readouterr().out.split() == [str(runs[0] / "report.html"), str(tmp_path / "report.html")]
    assert (runs[0] / "report.html").read_text(encoding="utf-8") == own
    assert read_run(runs[0]).name == "a"


def test_png_without_resvg_writes_nothing(make, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "resvg_py", None)
    folder = make()
    with pytest.raises(ConfigError, match="plots"):
        write_report([folder], png=True)
    assert not (folder / "report.html").exists()


def test_png_lies_beside_every_svg(make):
    pytest.importorskip("resvg_py", reason="the extra plots is not installed")
    folder = make(records=[{"stage": "dudi", "step": step, "loss": 1.0 / step} for step in (1, 2)])
    write_report([folder], png=True)
    assert {file.name for file in (folder / "figures").iterdir()} == {"weighted-sum.svg", "weighted-sum.png"}
