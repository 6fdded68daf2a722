"""`medunet fetch`: a public archive becomes a folder of scans, by a command that can be stopped and repeated."""

import errno
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from rich.markup import escape
from rich.table import Table

from medunet.base.errors import DataError, InputError
from medunet.base.files import read_json_object, write_json
from medunet.base.progress import ByteBar
from medunet.commands.terminal import console, say
from medunet.dataset.archives import unpack
from medunet.dataset.fetch import PATIENCE, Patience, discard, download, verify
from medunet.dataset.manifest import make_manifest
from medunet.dataset.public_archives import ARCHIVES, Archive, choose_archive
from medunet.records.data_root import case_paths
from medunet.records.description import load_description

if sys.platform != "win32":
    import fcntl

_MARK = ".fetched.json"  # in the folder of scans: the checksum of the archive that it came from


def run_fetch(
    name: str,
    out: Path,
    *,
    url: str | None = None,
    checksum: str | None = None,
    patience: Patience = PATIENCE,
) -> Path:
    """Download an archive below `out`, check and unpack it, and return the folder of scans.

    What is there already is kept: the folder of an earlier fetch, a copy of the archive that was put into `out`, and
    the part of a download that was stopped.

    Raises:
        InputError: as `choose_archive` and `download`; another fetch is at work, or the folder is another archive's.
        DataError: the archive is not the one that was asked for, is broken or hostile, or lacks images or labels.
    """
    archive = choose_archive(name, url, checksum)
    folder, work = out / archive.folder, out / f".{archive.folder}.fetch"
    work.mkdir(parents=True, exist_ok=True)
    with _alone(work):
        if folder.exists():
            _require_same(archive, folder)
            console.print(f"{escape(str(folder))} is there already", highlight=False, soft_wrap=True)
        else:
            _unpack(archive, _obtain(archive, out, work, patience), folder, work)
        shutil.rmtree(work)
    say("Fetch", _count_cases(archive, folder), folder)
    dataset = archive.dataset or "DATASET"
    following = f"medunet manifest {dataset} --run runs/{archive.name} --data-root {folder}"
    console.print(f"Next: {following}", highlight=False, soft_wrap=True, markup=False)
    return folder


def list_archives() -> None:
    """Show the archives that are known by name."""
    table = Table("name", "what", "size", "description")
    for archive in ARCHIVES.values():
        assert archive.dataset is not None
        title = load_description(archive.dataset).title
        table.add_row(archive.name, title.partition(",")[0], f"{archive.size_gb:g} GB", archive.dataset)
    console.print(table)


def _obtain(archive: Archive, out: Path, work: Path, patience: Patience) -> Path:
    """Return a checked archive file: the copy in `out` where there is one, else a download."""
    own_copy = out / unquote(PurePosixPath(urlsplit(archive.url).path).name)
    if own_copy.is_file():
        with ByteBar("Checksum") as bar:
            verify(own_copy, archive.checksum, bar)
        return own_copy
    part = work / "archive.part"
    with ByteBar(f"Download {archive.name}") as bar:
        download(archive.url, part, archive.checksum, bar, patience=patience, say=bar.print_line)
    try:
        with ByteBar("Checksum") as bar:
            verify(part, archive.checksum, bar)
    except DataError as error:
        discard(part)
        raise DataError(
            f"the download was removed: {error.what}",
            where=archive.name,
            hint="Fetch it again; if that ends alike, the file has changed where it lies.",
        ) from error
    return part


def _unpack(archive: Archive, file: Path, folder: Path, work: Path) -> None:
    def mark(content: Path) -> None:
        write_json(content / _MARK, {"checksum": str(archive.checksum)})

    with ByteBar("Unpack") as bar:
        bar.start(file.stat().st_size)
        unpack(file, folder, work / "unpacked", prepare=mark, advance=bar.advance)


def _require_same(archive: Archive, folder: Path) -> None:
    """Refuse to take a folder of another archive for the one that was asked for."""
    mark = folder / _MARK
    came_from = read_json_object(mark).get("checksum") if mark.exists() else None
    if came_from not in (None, str(archive.checksum)):
        raise InputError(
            f"came from another archive, of {came_from} and not {archive.checksum}",
            where=str(folder),
            hint="Move it away, or choose another --out.",
        )


def _count_cases(archive: Archive, folder: Path) -> str:
    """Say how many cases there are; of a described dataset each must have all its images, and its label to train on.

    Raises:
        DataError: names every file that is missing.
    """
    if archive.dataset is None:
        return f"{sum(path.is_file() for path in folder.rglob('[!.]*'))} files"
    manifest = make_manifest(load_description(archive.dataset), folder)
    missing = [item.path for item in manifest.unmatched if item.reason == "image without a label"]
    for case in manifest.cases:
        images, label = case_paths(case, manifest.description, folder)
        files = dict.fromkeys([*images, *([label] if label else [])])
        missing += [path.relative_to(folder).as_posix() for path in files if not path.is_file()]
        missing += [f"the label of {case.id}"] if case.split == "train" and label is None else []
    if missing:
        raise DataError(
            f"{len(missing)} file(s) are missing or lack their label: {', '.join(missing)}",
            where=str(folder),
            hint="Move the folder away and fetch it again.",
        )
    num_training = sum(case.split == "train" for case in manifest.cases)
    return f"{num_training} training cases, {len(manifest.cases) - num_training} others"


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Refuse to work on what another fetch is working on.

    Raises:
        InputError: another one is at it.
    """
    with (work / "lock").open("w") as lock:
        if sys.platform != "win32":
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    "another fetch is at work here", where=str(work.parent), hint="Wait for its end."
                ) from error
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # a network disk without locks
                    raise
        yield
