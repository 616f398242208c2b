"""What several processes decide together, and how they part."""

import os
import subprocess
import sys
import textwrap

ENDING = textwrap.dedent("""
    import atexit, sys
    import torch.distributed as dist
    atexit.register(lambda: print("open" if dist.is_initialized() else "closed"))  # the first one is called last
    from dudi import DudiConfig
    DudiConfig(sys.argv[1], use_cpu=True)
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/meeting", rank=0, world_size=1)
""")


def test_the_process_group_is_closed_before_the_interpreter_ends(tmp_path):
    done = subprocess.run([sys.executable, "-c", ENDING, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["closed"]), done.stderr[-2000:]


JOINED = """
import sys
from pathlib import Path

import torch

from dudi.training.arguments import RunArguments

args = RunArguments(output_dir=sys.argv[1])
if args.world_size > 1:
    torch.distributed.barrier()  # nobody leaves before the other has joined
(Path(sys.argv[1]) / f"{args.process_index}.txt").write_text(f"{args.world_size} {args.device.type}")
"""


def test_processes_without_an_accelerator_join_unasked(tmp_path):
    """Without `use_cpu`: each would else take itself for the whole run."""
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(JOINED)
    out.mkdir()
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), str(out)]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert {file.name: file.read_text() for file in out.iterdir()} == {"0.txt": "2 cpu", "1.txt": "2 cpu"}
