"""A full disk, a read-only one, a folder that vanishes: at each write of a save, on a disk of its own."""

import contextlib
import os
import shutil
import subprocess

import pytest
from kills import cut_before_a_save, differences, whole_run

from dudi.training.checkpoints import newest_valid

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path):
    """A small tmpfs, mounted for real."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
    if done is None or done.returncode != 0:
        pytest.skip("a disk cannot be mounted here: it takes root and the right to mount")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def mend(disk):
    """Undo the accident."""
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    with contextlib.suppress(FileNotFoundError):
        (disk / "ballast").unlink()
    if (disk / "run.away").exists():
        shutil.rmtree(disk / "run", ignore_errors=True)
        (disk / "run.away").rename(disk / "run")


def is_one_line(child):
    """A last line that says what is wrong, and no traceback."""
    lines = child.said.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return "Traceback" not in child.said and len(errors) == 1 and lines[-1] == errors[0]


@pytest.mark.parametrize(("accident", "every"), [("fill", 3), ("readonly", 4), ("vanish", 4)])
def test_at_each_write_of_a_save(lab, promise, disk, accident, every):
    whole, save, lost = whole_run(lab, "sft"), cut_before_a_save(lab), []
    places = range(1, len(save.operations) + 1, every)
    for place in places:
        run = save.copy(disk / "run")
        plant = {"folder": str(run), "at": place, "do": accident, "only": save.only}
        child = lab.run(lab.words(run, "sft"), plant={"boundaries": plant})
        mend(disk)
        found, skipped = newest_valid(run / "checkpoints")
        fine = child.code == 1 and is_one_line(child) and found is not None and not skipped
        last = lab.run(lab.words(run, "sft"))
        if not fine or last.code != 0 or differences(run, whole):
            lost.append(f"{save.operations[place - 1]}: {child.code} {child.said[-300:]} {skipped}")
        shutil.rmtree(run)
    row = "disk full, read-only, folder gone, at a write of a save: last checkpoint whole, exit 1, one line"
    promise(row, len(places), len(lost), "accidents", f"{accident} {lost or ''}")


def test_disks_of_every_size(lab, promise, disk):
    """From too small for the first line to nearly large enough: what fails is another write each time."""
    whole, sizes, lost, failed = whole_run(lab, "dudi"), [200 + 350 * n for n in range(9)], [], 0
    run = disk / "run"
    for kib in sizes:
        subprocess.run(["mount", "-o", f"remount,size={kib}k", str(disk)], check=True)
        child = lab.run(lab.words(run, "dudi"), cache=disk.parent / f"cache-{kib}")
        failed += child.code == 1
        fine = child.code == 0 or (child.code == 1 and is_one_line(child))
        fine &= not newest_valid(run / "checkpoints")[1]
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        last = lab.run(lab.words(run, "dudi"), cache=disk.parent / f"cache-{kib}")
        if not fine or last.code != 0 or differences(run, whole):
            lost.append(f"{kib} KiB: {child.code} {child.said[-300:]}")
        shutil.rmtree(run)
    assert failed >= 4
    promise(
        "a disk too small, of 9 sizes: exit 1, one line, resumed with the same bits",
        failed,
        len(lost),
        "disks",
        " ".join(lost),
    )
