"""Reading a CSV of a million rows × 20 columns: under 10 s and 2 GB.

    python benchmarks/csv_reading.py [ROWS]

Writes the file to a temporary folder (12 columns of numbers, 8 of categories, both with missing cells), reads it in
a process of its own, statistics and vocabularies included, and exits 1 when it takes longer or more.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

ROWS, NUMBERS, CATEGORIES = 1_000_000, 12, 8
SECONDS, BYTES = 10.0, 2 * 2**30

READ = """
import json, resource, sys, time
from unlabeled_tabular.readers import TableReader
start = time.perf_counter()
reader = TableReader(sys.argv[1])
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"rows": len(reader), "columns": len(reader.facts["columns"]), "seconds": seconds, "peak": peak}))
"""


def write(path: Path, rows: int) -> None:
    """A table of plain and heavy-tailed numbers and of 2 to 2000 categories; one cell in twenty is missing."""
    chance = np.random.default_rng(0)
    columns = {}
    for number in range(NUMBERS):
        values = chance.lognormal(2, 1, rows) if number % 3 else chance.integers(0, 10_000, rows).astype(float)
        columns[f"number{number}"] = pa.array(values.round(4), mask=chance.random(rows) < 0.05)
    for number, size in enumerate((2, 5, 10, 20, 50, 200, 500, 2000)):
        words = pa.array([f"category {word}" for word in range(size)])
        codes = pa.array(chance.integers(0, size, rows), mask=chance.random(rows) < 0.05)
        columns[f"category{number}"] = words.take(codes)
    assert len(columns) == NUMBERS + CATEGORIES
    csv.write_csv(pa.table(columns), path)


def main() -> int:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.csv"
        write(path, rows)
        size = path.stat().st_size
        run = subprocess.run([sys.executable, "-c", READ, str(path)], stdout=subprocess.PIPE, check=True, text=True)
    read = json.loads(run.stdout)
    print(f"{read['rows']:,} rows × {read['columns']} columns, {size / 2**20:.0f} MiB of CSV")
    print(f"{read['seconds']:.2f} s (at most {SECONDS:.0f}), peak memory {read['peak'] / 2**30:.2f} GiB (at most 2)")
    return int(read["seconds"] > SECONDS or read["peak"] > BYTES)


if __name__ == "__main__":
    sys.exit(main())
