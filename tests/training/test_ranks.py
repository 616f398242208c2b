"""What several processes decide together, and how they part."""

import pytest

from ranks import run_ranks

SCRIPT = """
import atexit, sys
from pathlib import Path

import torch
import torch.distributed as dist

atexit.register(lambda: print("open" if dist.is_initialized() else "closed"))  # the first one is called last

from dudi.training.arguments import RunArguments

args = RunArguments(output_dir=sys.argv[1])
if args.world_size > 1:
    dist.barrier()  # nobody leaves before the other has joined
(Path(sys.argv[1]) / f"{args.process_index}.txt").write_text(f"{args.world_size} {args.device.type}")
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What each of them says, and where they wrote."""
    root = tmp_path_factory.mktemp("ranks")
    (root / "script.py").write_text(SCRIPT)
    (root / "out").mkdir()
    return run_ranks(root / "script.py", root / "out", CUDA_VISIBLE_DEVICES=""), root / "out"


def test_processes_without_an_accelerator_join_unasked(two_processes):
    """Without `use_cpu`: each would else take itself for the whole run."""
    _, out = two_processes
    assert {file.name: file.read_text() for file in out.iterdir()} == {"0.txt": "2 cpu", "1.txt": "2 cpu"}


def test_the_process_group_is_closed_before_the_interpreter_ends(two_processes):
    said, _ = two_processes
    assert [output.split() for output in said] == [["closed"], ["closed"]]
