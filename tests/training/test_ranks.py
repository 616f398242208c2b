"""What several processes decide together, and how they part."""

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
