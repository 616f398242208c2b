"""The processes of a distributed run, as torchrun would start them; its own process costs three seconds."""

import os
import subprocess
import sys
from pathlib import Path

from servers import free_port


def environments(world):
    """What tells each process of a run which one it is, in the order of the ranks."""
    whole = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    whole |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [whole | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]


def run_ranks(
    script: Path | str, *words: object, world: int = 2, timeout: float = 280.0, **environment: str
) -> list[str]:
    """What each process of a script says, in the order of the ranks; all have to end well."""
    found = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, str(script), *map(str, words)]
    ranks = []
    for own in environments(world):
        ranks.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=found | own)
        )
    try:
        said = [rank.communicate(timeout=timeout) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()  # one that waits for another that has failed
    for rank, (_, errors) in zip(ranks, said, strict=True):
        assert rank.returncode == 0, errors[-3000:]
    return [output for output, _ in said]
