"""Two gloo processes under one served teacher: each asks for its own rows, and all of them end when the server does."""

import os
import sys
from pathlib import Path

import pytest
from sharding import ENVIRONMENT, allow_gloo
from test_several_teachers import first_teacher
from test_trainer import metrics_of

from completion_server import serving
from dudi import DudiTrainer, ServedTeacher
from dudi.errors import EnvironmentFault
from helpers import ROWS, make_model, make_shared_args, make_tokenizer
from ranks import run_ranks

STEPS, SHARDED_STEPS = 3, 2


def train(folder: Path, teacher: str, url: str, processes: int, steps: int = STEPS) -> None:
    keys = {"max_steps": steps, "cold_start": "none", "teacher_max_length": 512, "max_new_tokens": 6}
    args = make_shared_args(folder, processes, "dudi", **keys)
    served = ServedTeacher(teacher, url, 30.0, (0.0, 0.0))
    DudiTrainer(make_model(seed=1), served, args, ROWS, None, make_tokenizer()).train()


@pytest.mark.slow
def test_two_processes_ask_as_one_and_end_together(tmp_path):
    first_teacher().config.save_pretrained(tmp_path / "teacher")
    make_tokenizer().save_pretrained(tmp_path / "teacher")
    with serving(first_teacher()) as (url, served):
        train(tmp_path / "one", str(tmp_path / "teacher"), url, processes=1)
        served.bodies.clear()
        # A question at each start, and one of each rank in each step: the last run ends in its second.
        served.left = 1 + 2 * STEPS + 1 + 2 * SHARDED_STEPS + 1 + 2
        run_ranks(__file__, tmp_path, url)
    one, two, sharded = (metrics_of(tmp_path / name) for name in ("one", "two", "sharded"))
    assert [step["loss"] for step in two] == pytest.approx([step["loss"] for step in one], abs=1e-3)
    assert [step["loss"] for step in sharded] == pytest.approx([step["loss"] for step in two][:SHARDED_STEPS], abs=1e-3)
    assert [step["teacher/tokens"] for step in two[:1]] == [step["teacher/tokens"] for step in one[:1]]
    assert [step["teacher/requests"] for step in two] == [2] * STEPS
    said = [(tmp_path / f"ended-{rank}").read_text() for rank in range(2)]
    assert said[0] == said[1] and "step-1 is saved" in said[0]
    assert (tmp_path / "dying" / "checkpoints" / "step-1").is_dir()


if __name__ == "__main__":
    place, address = Path(sys.argv[1]), sys.argv[2]
    train(place / "two", str(place / "teacher"), address, processes=2)
    allow_gloo()
    environment = dict(os.environ)
    os.environ |= ENVIRONMENT
    train(place / "sharded", str(place / "teacher"), address, processes=2, steps=SHARDED_STEPS)
    for name in ENVIRONMENT.keys() - environment.keys():
        del os.environ[name]
    try:
        train(place / "dying", str(place / "teacher"), address, processes=2)
    except EnvironmentFault as error:
        (place / f"ended-{os.environ['RANK']}").write_text(str(error))
