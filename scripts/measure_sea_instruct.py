"""Peak memory and time of `dudi prepare sea-instruct` on generated Parquet files of growing size (Linux).

    python scripts/measure_sea_instruct.py --rows 100000 1000000

Each size runs in a process of its own; the files lie in a temporary folder that is deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_A_GROUP = 10_000
DOMAINS = [f"Domain_{number}" for number in range(43)]
TASKS = [f"Task_{number}" for number in range(12)]
COMPLEXITIES = ["Simple", "Moderate", "Complex"]
QUESTION = "ประเทศไทยมีกี่จังหวัด และจังหวัดหมายเลข {number} มีชื่อว่าอะไร"
ANSWER = "ประเทศไทยมีเจ็ดสิบเจ็ดจังหวัด ส่วนหมายเลข {number} เป็นเพียงตัวเลขสำหรับการวัด{extra}"
SCHEMA = pa.schema(
    [
        ("conversations_id", pa.string()),
        ("conversations", pa.string()),
        ("source", pa.string()),
        ("prompt_primary_domain", pa.string()),
        ("prompt_primary_task", pa.string()),
        ("prompt_complexity", pa.string()),
        ("prompt_input_quality", pa.string()),
        ("prompt_is_coherent", pa.bool_()),
        ("prompt_is_natural", pa.bool_()),
    ]
)


def generated_rows(count: int, seed: int) -> Iterator[dict[str, object]]:
    """Rows with a skewed mix; one in a thousand repeats the id before it, one in five hundred has no answer."""
    rng = random.Random(seed)
    for number in range(count):
        answer = ANSWER.format(number=number, extra=" " * (number % 7))
        turns = [{"role": "user", "content": QUESTION.format(number=number), "country": None}]
        if number % 500:
            turns.append({"role": "assistant", "content": answer, "country": None})
        yield {
            "conversations_id": f"c{number - (number % 1000 == 1)}",
            "conversations": repr(turns),
            "source": "generated",
            "prompt_primary_domain": rng.choices(DOMAINS, weights=range(1, 44))[0],
            "prompt_primary_task": rng.choice(TASKS),
            "prompt_complexity": rng.choices(COMPLEXITIES, weights=(5, 3, 1))[0],
            "prompt_input_quality": "Excellent",
            "prompt_is_coherent": True,
            "prompt_is_natural": True,
        }


def generate(path: Path, count: int) -> None:
    """Write `count` rows to a Parquet file, a row group at a time."""
    path.parent.mkdir(parents=True)
    rows = generated_rows(count, seed=0)
    with pq.ParquetWriter(path, SCHEMA) as out:
        for start in range(0, count, ROWS_A_GROUP):
            group = [next(rows) for _ in range(min(ROWS_A_GROUP, count - start))]
            out.write_table(pa.Table.from_pylist(group, schema=SCHEMA))


def peak_kib() -> int:
    """This process's highest resident set. Not `ru_maxrss`: on Linux a child begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def measure(folder: Path, per_language: int) -> dict[str, float]:
    """Prepare a sample in this process, and say what it took."""
    from dudi.data.sea.prepare import prepare_sea_instruct

    start = time.perf_counter()
    card = prepare_sea_instruct(str(folder), folder / "out", per_language=per_language, languages=["th"])
    seconds = time.perf_counter() - start
    return {
        "rows": card["rows_read"],
        "taken": card["output"]["rows"],
        "seconds": round(seconds, 1),
        "peak_mib": round(peak_kib() / 1024, 1),
        "joint_mix_moved": card["languages"]["th"]["joint_mix_moved"],
    }


def main() -> None:
    """Generate and measure each size in turn; one line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--per-language", type=int, default=4000)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.folder is not None:
        sys.stdout.write(json.dumps(measure(given.folder, given.per_language)) + "\n")
        return
    for count in given.rows:
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "Thai" / "train-00000-of-00001.parquet"
            generate(file, count)
            size = file.stat().st_size / 2**20
            sys.stdout.write(f"{count:,} rows, {size:.1f} MiB of Parquet: ")
            sys.stdout.flush()
            child = [sys.executable, __file__, "--folder", place, "--per-language", str(given.per_language)]
            subprocess.run(child, check=True)


if __name__ == "__main__":
    main()
