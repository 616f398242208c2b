"""The SIGKILL promise by hand, many times: `python tests/trust/campaign.py --moments 25 --output FILE.json`."""

import argparse
import datetime
import platform
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import torch
from kills import kill_at_random
from lab import METHODS_OF_THE_PROMISE, Lab

from dudi.files import write_json


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=25, help="trials for each method")
    parser.add_argument("--first", type=int, default=100, help="seed of the first trial")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    trials = []
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(folder)
        for seed in range(given.first, given.first + given.moments):
            for method in METHODS_OF_THE_PROMISE:
                trials.append(kill_at_random(lab, method, seed))
                print(trials[-1], flush=True)
            write_json(given.output, summary(given, trials))  # one that is cut off leaves what it has found
        lab.server.close()


def summary(given, trials):
    killed = Counter(trial["method"] for trial in trials for at in trial["killed"] if "ended" not in at)
    return {
        "command": f"python tests/trust/campaign.py --moments {given.moments} --first {given.first} --output FILE",
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "trials": dict(Counter(trial["method"] for trial in trials)),
        "kills": dict(killed),
        "lost": sum(bool(trial["lost"]) for trial in trials),
        "each": trials,
    }


if __name__ == "__main__":
    main()
