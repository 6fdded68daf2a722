"""`medunet fetch`: download a public dataset, verify and unpack it; a stopped download is resumed."""

import shutil
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from rich.markup import escape
from rich.table import Table

from medunet.base.errors import DataError, InputError
from medunet.base.files import read_json_object, write_json
from medunet.base.lock import hold
from medunet.base.progress import ByteBar
from medunet.commands.terminal import console, print_stage
from medunet.dataset.archives import unpack
from medunet.dataset.fetch import PATIENCE, Patience, discard, download, verify
from medunet.dataset.manifest import make_manifest
from medunet.dataset.public_archives import ARCHIVES, Archive, choose_archive
from medunet.records.data_root import case_paths
from medunet.records.description import load_description

_MARK = ".fetched.json"  # in the folder of scans: the checksum of the source archive


def run_fetch(
    name: str,
    out: Path,
    *,
    url: str | None = None,
    checksum: str | None = None,
    patience: Patience = PATIENCE,
) -> Path:
    """Download an archive into `out`, verify and unpack it, and return the folder of scans.

    Existing files are used: the folder of an earlier fetch, a copy of the archive that the user put into `out`, or a
    partial download.

    Raises:
        InputError: From `choose_archive` and `download`; or another fetch of this archive is running in `out`, or
            the folder comes from another archive.
        DataError: The archive has a wrong checksum, is damaged or unsafe, or images or labels are missing.
    """
    archive = choose_archive(name, url, checksum)
    folder, work = out / archive.folder, out / f".{archive.folder}.fetch"
    with hold(out, "fetch", [archive.folder]):
        work.mkdir(exist_ok=True)
        if folder.exists():
            _require_same(archive, folder)
            console.print(f"{escape(str(folder))} already exists", highlight=False, soft_wrap=True)
        else:
            _unpack(archive, _obtain(archive, out, work, patience), folder, work)
        shutil.rmtree(work)
    print_stage("Fetch", _count_cases(archive, folder), folder)
    dataset = archive.dataset or "DATASET"
    following = f"medunet manifest {dataset} --run runs/{archive.name} --data-root {folder}"
    console.print(f"Next: {following}", highlight=False, soft_wrap=True, markup=False)
    return folder


def list_archives() -> None:
    """Print a table of the archives that can be fetched by name."""
    table = Table("name", "what", "size", "description")
    for archive in ARCHIVES.values():
        assert archive.dataset is not None
        title = load_description(archive.dataset).title
        table.add_row(archive.name, title.partition(",")[0], f"{archive.size_gb:g} GB", archive.dataset)
    console.print(table)


def _obtain(archive: Archive, out: Path, work: Path, patience: Patience) -> Path:
    """Return a verified archive file: the copy in `out` if there is one, otherwise a download."""
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
            hint="Fetch it again. If this error repeats, the file on the server has changed.",
        ) from error
    return part


def _unpack(archive: Archive, file: Path, folder: Path, work: Path) -> None:
    def mark(content: Path) -> None:
        write_json(content / _MARK, {"checksum": str(archive.checksum)})

    with ByteBar("Unpack") as bar:
        bar.start(file.stat().st_size)
        unpack(file, folder, work / "unpacked", prepare=mark, advance=bar.advance)


def _require_same(archive: Archive, folder: Path) -> None:
    """Check that an existing folder was unpacked from this archive.

    Raises:
        InputError: It came from another archive.
    """
    mark = folder / _MARK
    came_from = read_json_object(mark).get("checksum") if mark.exists() else None
    if came_from not in (None, str(archive.checksum)):
        raise InputError(
            f"came from another archive, with checksum {came_from} instead of {archive.checksum}",
            where=str(folder),
            hint="Move it away, or choose another --out.",
        )


def _count_cases(archive: Archive, folder: Path) -> str:
    """Return a text with the number of cases (for an archive without description: of files).

    Raises:
        DataError: Images, or labels of training cases, are missing; the message names every file.
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
