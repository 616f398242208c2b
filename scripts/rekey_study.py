"""Give the results in `docs/results/study.json` the ids that this version gives their runs.

    python scripts/rekey_study.py

A run's id is a hash of its keys and of its models' weights (`dudi.study.jobs.key_of`). After a change of that formula,
or of a default, that changes no number, the results would be of no run: this says whose they are, by recipe, words and
seed. After a change that does change numbers, run the study again instead.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dudi.command import say
from dudi.evaluation.records import write_evaluations
from dudi.study.grid import read_studies
from dudi.study.jobs import cost_job, job_of
from dudi.study.results import FILE, read

RESULTS = Path(__file__).parents[1] / "docs" / "results" / FILE


def main() -> None:
    """Write the file anew, and say what belongs to no run any more."""
    ids = {}
    for study in read_studies([]):
        for row in study.rows:
            for job in (cost_job(study, row), *(job_of(study, row, seed) for seed in range(study.seeds))):
                ids[job.kind, Path(job.recipe).name, job.words, job.seed] = job.id
    kept, lost = [], []
    for one in read(RESULTS).values():
        about, (kind, _, seed) = one.about, one.about["job"].replace("/seed-", "-").split("-")
        place = kind, about["recipe"], tuple(about["words"]), int(seed)
        if place in ids:
            kept.append(dataclasses.replace(one, about={**about, "job": ids[place]}))
        else:
            lost.append(place)
    write_evaluations(kept, RESULTS, a_line_each=True)
    say(f"{len(kept)} kept; of no run: {lost or 'none'}")


if __name__ == "__main__":
    main()
