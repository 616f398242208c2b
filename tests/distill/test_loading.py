"""What a recipe names is read once, and handed on: to the trainer, to those who ask afterwards, to plan and dry run."""

from collections import Counter

import pytest

from dudi.data.sources import load_rows
from dudi.distill.loading import Loaded
from dudi.distill.recipe import load_run_config
from dudi.distill.run import make_trainer
from dudi.models import load
from dudi.plan import plan_run
from dudi.program.train import train

WORDS = ["max_steps=1", "languages=[id, my]", "data.tasks=[currency]", "use_cpu=true", "disable_tqdm=true"]
QUICK = [
    *WORDS,
    "data.rows_per_language=66",
    "max_new_tokens=8",
    "per_device_train_batch_size=2",
    "gradient_accumulation_steps=1",
]
ASKED = ["benchmark.per_split=1", "benchmark.max_new_tokens=2"]


@pytest.fixture
def read(monkeypatch):
    """How often each model, tokenizer and config is read, by what and where."""
    counts = Counter()

    def counting(what, call):
        def counted(name, *args, **kwargs):
            counts[what, str(name).rpartition("/")[2]] += 1
            return call(name, *args, **kwargs)

        return counted

    for what in ("load_model", "load_tokenizer"):
        monkeypatch.setattr(load, what, counting(what, getattr(load, what)))
    from transformers import AutoConfig

    monkeypatch.setattr(AutoConfig, "from_pretrained", counting("config", AutoConfig.from_pretrained))
    return counts


def read_tokenizers(counts):
    return {name: count for (what, name), count in counts.items() if what == "load_tokenizer"}


def test_a_run_reads_its_teacher_and_its_tokenizers_once(tmp_path, read, monkeypatch):
    config = load_run_config("mini/gkd", [*QUICK, *ASKED, "cold_start=none"])
    assert train(config, output=tmp_path / "run") == 0
    assert read_tokenizers(read) == {"base": 1, "teacher": 1}
    assert read["load_model", "teacher"] == 1  # the trainer's, and the one that is asked
    assert read["load_model", "base"] == 2  # training changes the one; the other is asked as it was
    assert (tmp_path / "run" / "evaluation.json").is_file()


def test_a_dry_run_reads_tokenizers_and_configs_once(tmp_path, read, capsys):
    assert train(load_run_config("mini/dudi", QUICK), output=tmp_path / "run", dry_run=True) == 0
    assert read_tokenizers(read) == {"base": 1, "teacher": 1}
    assert not [name for what, name in read if what == "load_model"]
    assert "dry run" in capsys.readouterr().out


def test_a_plan_of_what_is_loaded_reads_no_config_again(tmp_path, read):
    config = load_run_config("mini/dudi", QUICK)
    loaded = Loaded(config, config.dudi_config(tmp_path))
    assert loaded.student_config is loaded.student_config
    before = read["config", "base"], read["config", "teacher"]
    assert plan_run(config, loaded=loaded) == plan_run(config)
    plan_run(config, loaded=loaded)
    after = read["config", "base"], read["config", "teacher"]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 2]  # the plan that was given none


def test_stages_of_one_recipe_share_a_teacher(tmp_path, read):
    config = load_run_config("mini/gkd", QUICK)
    loaded = Loaded(config, config.dudi_config(tmp_path))
    rows = load_rows("cldr-qa-1", languages=["id", "my"], tasks=["currency"])
    first, second = make_trainer(loaded, rows, None), make_trainer(loaded, rows, None)
    assert first.setup.teacher is second.setup.teacher is loaded.teachers["default"]
    assert first.model is not second.model
    stage = loaded.args.for_cold_start(str(tmp_path / "stage"))
    assert make_trainer(loaded, rows, None, args=stage).setup.teacher is None
    loaded.drop_teachers()
    assert loaded.teachers["default"] is not first.setup.teacher
    assert read["load_model", "teacher"] == 2
