"""What is lost when a worker, a node or the command is killed in the midst of a stage.

Each stage runs as its real command, by two workers: on the two nodes of Ray's own test cluster, or local processes.
An undisturbed run is the yardstick. In each disturbed one SIGKILL hits a worker, a node, or the command itself, which
is then started again, at a random moment after the first result. All files must be equal in the end, byte for byte
but for seconds, and volumes when uncompressed: `lost` counts what the yardstick has and the run lacks, `twice` the
reverse, and `half` what else is left, such as temporary files, journals and locks. A kill that comes too late is not
counted, and repeated.

    python benchmarks/kills.py
    python benchmarks/kills.py --engine local --runs 5 --stages predict score
"""

import argparse
import gzip
import hashlib
import json
import random
import re
import shutil
import signal
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kills_processes import Command, Nodes, find_workers, started
from kills_stages import prepare

STAGES = {  # the label of the progress bar, and how many cases take some seconds
    "import-dicom": ("Import", 24),
    "check": ("Check", 24),
    "predict": ("Predict", 16),
    "score": ("Score", 24),
    "report": ("Report", 10),
}
KINDS = {"ray": ("worker", "node", "driver"), "local": ("worker", "driver")}
VOLATILE = {"seconds", "seconds_by_part"}
UNLIKE = {"cost.json"}  # tells what each command took; one that is killed writes none
NAMED = re.compile(r"(phantom_|noise_|p\d+_s)\d+.*its process was killed")


def main() -> None:
    """Kill, compare, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=KINDS, default="ray")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--kinds", nargs="+", choices=KINDS["ray"], default=list(KINDS["ray"]))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kinds = [kind for kind in options.kinds if kind in KINDS[options.engine]]
    print(f"{options.engine}, 2 workers, 10 to 24 cases")
    print("| stage | killed | runs | hit | failed by name | lost | twice | half files |\n|" + "---|" * 8)
    is_good = True
    for stage in options.stages:
        for count in kill_stage(stage, kinds, options.engine, options.runs, options.seed):
            print(count.row(), flush=True)
            for text in count.remarks:
                print(f"  {text}", file=sys.stderr, flush=True)
            is_good = is_good and not count.remarks and count.hit == options.runs
    sys.exit(not is_good)


@dataclass
class Count:
    """What the kills of one kind in one stage did."""

    stage: str
    kind: str
    runs: int = 0
    hit: int = 0  # while the work was going on
    named: int = 0  # commands that failed the killed worker's case by name, and did it when started again
    lost: int = 0
    twice: int = 0
    half: int = 0
    remarks: list[str] = field(default_factory=list)  # on what should not be

    def row(self) -> str:
        """Return the row of the table."""
        numbers = (self.runs, self.hit, self.named, self.lost, self.twice, self.half)
        return f"| {self.stage} | {self.kind} | " + " | ".join(map(str, numbers)) + " |"


def kill_stage(stage: str, kinds: list[str], engine: str, runs: int, seed: int) -> Iterator[Count]:
    """Yield the counts of each kind of kill in a stage, after so many that hit."""
    with TemporaryDirectory(prefix="kills") as name, started(engine, Path(name)) as cluster:
        folder = Path(name)
        bar, cases = STAGES[stage]
        arguments = prepare(stage, folder, cases)
        if engine == "ray":
            arguments += ["--engine", "ray", "--address", cluster.address]
            arguments += ["--device", "cpu"] if stage == "predict" else []
        elif stage == "predict":
            arguments += ["--devices", "cpu:2"]
        arguments += [] if stage == "predict" else ["--workers", "2"]

        def begin() -> Command:
            return Command(arguments, bar)

        fresh(folder)
        yardstick = begin()
        if yardstick.wait() != 0:
            raise SystemExit(f"{stage}: the undisturbed run failed:\n{yardstick.text()}")
        expected = units_in(folder / "out")
        for kind in kinds:
            moments = random.Random(f"{seed} {stage} {kind}")
            count = Count(stage, kind)
            while count.hit < runs and count.runs < 3 * runs + 3:
                fresh(folder)
                disturb(begin, kind, cluster, moments, count)
                compare(expected, units_in(folder / "out"), count)
            yield count


def fresh(folder: Path) -> None:
    """Put the stage's folder back to what it was before the stage."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    shutil.copytree(folder / "before", folder / "out")


def disturb(
    begin: Callable[[], Command], kind: str, cluster: Nodes | None, moments: random.Random, count: Count
) -> None:
    """Run the command with one kill, and again if it was killed itself or names failed cases."""
    command = begin()
    command.wait_for(moments.uniform(0, 90))
    time.sleep(moments.uniform(0, 0.2))
    if kind == "node":
        assert cluster is not None
        is_hit = cluster.kill_node(moments)
    elif kind == "driver":
        is_hit = command.process.poll() is None
        command.process.kill()
    else:
        workers = find_workers(command.process) if cluster is None else cluster.workers()
        is_hit = bool(workers)
        if workers:
            moments.choice(workers).kill()
    code = command.wait()
    count.runs += 1
    count.hit += is_hit
    if kind == "driver" and is_hit and code == -signal.SIGKILL:
        command = begin()
        code = command.wait()
    elif cluster is None and NAMED.search(command.text()):
        count.named += 1
        if code != (count.stage != "report"):  # where the page of the case says so
            count.remarks.append(f"run {count.runs}: exit code {code} with a failed case")
        command = begin()
        code = command.wait()
    if cluster is not None:
        cluster.mend()
    if code != 0:
        count.remarks.append(f"run {count.runs}: exit code {code}: {command.text()[-2000:]}")


def units_in(folder: Path) -> Counter[tuple[str, str]]:
    """Return what the files in a folder hold: lines of tables, entries of an index, and hashes of the others."""
    units: Counter[tuple[str, str]] = Counter()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.name in UNLIKE:
            continue
        if path.suffix == ".csv":
            units.update((name, line) for line in path.read_text().splitlines())
        elif path.suffix == ".json":
            units.update((name, unit) for unit in plain_units(path))
        else:
            units[name, hashlib.sha256(content_of(path)).hexdigest()] += 1
    return units


def content_of(path: Path) -> bytes:
    """Return the bytes of a file; of a volume the uncompressed ones, which ISA-L may compress in two ways."""
    content = path.read_bytes()
    try:
        return gzip.decompress(content) if path.name.endswith(".nii.gz") else content
    except (EOFError, OSError, zlib.error):
        return content  # half a file


def plain_units(path: Path) -> Iterator[str]:
    """Yield the entries of a JSON file's objects and lists, without seconds."""
    try:
        content = json.loads(path.read_text(), object_pairs_hook=without_seconds)
    except ValueError:
        content = {"half": path.name}
    for key, value in content.items():
        if isinstance(value, dict):
            yield from (f"{key}: {name}: {json.dumps(each)}" for name, each in value.items())
        elif isinstance(value, list):
            yield from (f"{key}: {json.dumps(each)}" for each in value)
        else:
            yield f"{key}: {json.dumps(value)}"


def without_seconds(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON without the times that it names, and with the keys that it has twice."""
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    return {key: value for key, value in pairs if key not in VOLATILE} | ({"twice": twice} if twice else {})


def compare(expected: Counter[tuple[str, str]], found: Counter[tuple[str, str]], count: Count) -> None:
    """Count what a run lacks, has beside or twice, and has left."""
    known = {name for name, _ in expected}
    lost, more = expected - found, found - expected
    half = {name for name, _ in more if name not in known and is_leftover(name)}
    twice = [name for name, _ in more.elements() if name not in half]
    count.lost += lost.total()
    count.twice += len(twice)
    count.half += len(half)
    for what, names in (("lost", [name for name, _ in lost]), ("twice", twice), ("half", half)):
        if names:
            count.remarks.append(f"run {count.runs}: {what}: {', '.join(sorted(set(names)))}")


def is_leftover(name: str) -> bool:
    """Return whether a file is of a kind that no finished command leaves."""
    last = name.rpartition("/")[2]
    return last.startswith(".") or last.endswith((".tmp", ".part", ".jsonl", ".lock"))


if __name__ == "__main__":
    main()
