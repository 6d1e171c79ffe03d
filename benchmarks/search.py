"""Search of a large gallery: centred one-bit codes with a half-precision rescore, against exact search of the same rows.

    python benchmarks/search.py [--rows 10000000] [--width 512] [--queries 100] [--folder runs/search] [--kills 20]

Rows are unit vectors as CLIP's pictures are: a common mean (0.87 of their length), and beside it clusters of clusters in 96
dimensions that reach into all, so that every row has near neighbours. They are written in segments of 100,000, as an index of
pictures is; a child process that adds segments is killed again and again, and what it finished is counted. Then: recall of the
first ten against exact search, for queries like the rows and for queries like words, which share a long mean of their own
(0.7 of their length) and of the rest have 0.8 of a row's; seconds a query with NumPy, and with FAISS where it is installed;
resident memory. Needs 1.1 kB of disk a row.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from clipcond.find.bit_index import BitIndex
from clipcond.find.codes import Comparison, by_numpy, comparison
from clipcond.find.segments import SUFFIX, Segment, write_segment

MEAN, INNER, ROWS = 0.87, 96, 100_000
RESCORED = (200, 1000, 5000)


class Rows:
    """Rows of one gallery, segment by segment; the same for the same seed."""

    def __init__(self, width: int, seed: int = 0) -> None:
        rng = np.random.default_rng([seed, 0])
        mean = rng.normal(size=width)
        self.mean = (mean / np.linalg.norm(mean)).astype(np.float32)
        self._map = (rng.normal(size=(INNER, width)) / INNER**0.5).astype(np.float32)
        self._coarse = rng.normal(size=(1000, INNER)).astype(np.float32)
        self._seed, self._width = seed, width

    def segment(self, number: int, count: int = ROWS) -> np.ndarray:
        """(count, P) float32 unit rows."""
        rng = np.random.default_rng([self._seed, 1, number])
        fine = self._coarse[rng.integers(len(self._coarse), size=2000)] + 0.7 * rng.normal(size=(2000, INNER))
        inner = fine[rng.integers(len(fine), size=count)] + 0.4 * rng.standard_normal((count, INNER), dtype=np.float32)
        own = inner.astype(np.float32) @ self._map
        own -= (own @ self.mean)[:, None] * self.mean
        own *= (1 - MEAN**2) ** 0.5 / np.linalg.norm(own, axis=1, keepdims=True)
        return own + MEAN * self.mean

    def words(self, count: int) -> np.ndarray:
        """(count, P) float32 unit queries as texts are: elsewhere than rows, and only in part about one."""
        rng = np.random.default_rng([self._seed, 2])
        gap = rng.normal(size=self._width)
        gap -= (gap @ self.mean) * self.mean
        own, noise = self.segment(10_000_001, count) - MEAN * self.mean, rng.normal(size=(count, self._width))
        own = 0.8 * _unit(own) + 0.6 * _unit(noise)
        return 0.7 * _unit(gap[None]) + (1 - 0.7**2) ** 0.5 * _unit(own)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def build(folder: Path, rows: Rows, count: int) -> float:
    """Write what is missing of `count` rows; return the seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    since = time.monotonic()
    for number in range(-(-count // ROWS)):
        path = folder / f"{number:06}{SUFFIX}"
        if not path.exists():
            size = min(ROWS, count - number * ROWS)
            names = [f"{number * ROWS + row}" for row in range(size)]
            write_segment(path, rows.segment(number, size), names, MEAN * rows.mean)
    return time.monotonic() - since


def killed(folder: Path, width: int, kills: int) -> str:
    """Kill a process that adds segments, at random moments; every segment that is there must be whole."""
    script = (
        "import sys, runpy, itertools; from pathlib import Path; m = runpy.run_path(sys.argv[1]);"
        "folder, rows = Path(sys.argv[2]), m['Rows'](int(sys.argv[3]), 7);"
        "[m['write_segment'](folder / f'{n:06}.segment', rows.segment(n, 20000), ['x'] * 20000, rows.mean)"
        " for n in itertools.count() if not (folder / f'{n:06}.segment').exists()]"
    )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    draw, before, lost = random.Random(0), 0, 0
    for _ in range(kills):
        with subprocess.Popen([sys.executable, "-c", script, __file__, str(folder), str(width)]) as child:
            time.sleep(2 + draw.random())
            child.kill()
        found = [Segment(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]
        lost += sum(segment.count != 20_000 for segment in found) + (len(found) < before)
        before = len(found)
    shutil.rmtree(folder)
    return f"{kills} kills while adding: {before} segments finished, {lost} damaged or lost"


def peak_of_a_search(folder: Path, width: int) -> float:
    """Return the MiB that a process needs at most that opens the index and asks it twenty times."""
    script = (
        "import sys; from pathlib import Path; import numpy as np;"
        "from clipcond.find.bit_index import BitIndex; from clipcond.find.segments import SUFFIX, Segment;"
        "index = BitIndex([Segment(path) for path in sorted(Path(sys.argv[1]).glob('*' + SUFFIX))]);"
        "[index.search(query, 10) for query in np.random.default_rng(0).normal(size=(20, int(sys.argv[2])))];"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(width)], capture_output=True, text=True, check=True
    )
    return float(done.stdout) / 1024  # getrusage would count what this process needs, too


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=10_000_000)
    options.add_argument("--width", type=int, default=512)
    options.add_argument("--queries", type=int, default=100)
    options.add_argument("--folder", type=Path, default=Path("runs/search"))
    options.add_argument("--kills", type=int, default=20)
    given = options.parse_args()

    print(f"{datetime.date.today()}, python {' '.join(sys.argv)}")
    print(f"NumPy {np.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores")
    if given.kills:
        print(killed(given.folder / "killed", given.width, given.kills))
    rows = Rows(given.width)
    print(f"built in {build(given.folder, rows, given.rows):.0f} s")
    segments = [Segment(path) for path in sorted(given.folder.glob(f"*{SUFFIX}"))]
    index = BitIndex(segments)
    queries = {"pictures": rows.segment(10_000_000, given.queries), "words": rows.words(given.queries)}
    ways = [Comparison(name=f"NumPy {np.__version__}", distances=by_numpy), comparison()]
    print(
        f"{len(index):,} × {given.width}; a process that searches needs {peak_of_a_search(given.folder, given.width):,.0f} MiB"
    )
    print("\n| compared by | seconds a query |\n|---|---|")
    for way in ways[: 1 if ways[1].name == "NumPy" else 2]:
        times = timed(BitIndex(segments, by=way), queries["pictures"])
        low, high = statistics.quantiles(times, n=20)[0], statistics.quantiles(times, n=20)[-1]
        print(f"| {way.name} | {statistics.median(times):.3f} [{low:.3f}, {high:.3f}] |")
    print(
        "\n| queries like | " + " | ".join(f"recall@10, {count:,} rescored" for count in RESCORED) + " | measured in |"
    )
    print("|---|" + "---|" * (len(RESCORED) + 1))
    for kind, asked in queries.items():
        since = time.monotonic()
        recall = index.recall(10, queries=asked, rescored=RESCORED)
        shares = " | ".join(f"{share:.3f}" for share in recall)
        print(f"| {kind} | {shares} | {time.monotonic() - since:.0f} s |")


def timed(index: BitIndex, queries: np.ndarray) -> list[float]:
    """Return the seconds of each query, after one that is not counted."""
    index.search(queries[0], 10)
    times = []
    for query in queries:
        since = time.monotonic()
        index.search(query, 10)
        times.append(time.monotonic() - since)
    return times


if __name__ == "__main__":
    main()
