"""Files of a folder tree, each once: links are followed, but never around in circles; hidden folders are left out."""

import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

_POINTERS = (b"/annex/objects/", b"version https://git-lfs.github.com/")
_ENDINGS = (".dcm", ".dicom", ".ima")
_FETCH = "get it with `git annex get` or `git lfs pull`, or from where it is"


@dataclass(frozen=True)
class UnreadableFile:
    """A DICOM file that cannot be read, or a folder that cannot or should not be opened, with the reason."""

    path: Path
    why: str


@dataclass
class TreeFiles:
    """The files below a folder, and what is not read."""

    paths: list[Path] = field(default_factory=list)
    unreadable: list[UnreadableFile] = field(default_factory=list)
    left_out: list[UnreadableFile] = field(default_factory=list)  # folders
    num_again: int = 0  # further links to files that are read


def find_files(root: Path, leave_out: Path | None = None) -> TreeFiles:
    """Find the files below `root`, except those below `leave_out` and in hidden folders, sorted by path.

    A file or folder that can be reached in several ways is read once, without a link if possible. A link to a folder
    around the root is not followed.
    """
    found = TreeFiles()
    files: list[Path] = []
    avoided = leave_out.resolve() if leave_out else None
    visited = {root.resolve()}
    waiting = deque([root])
    while waiting:
        start = waiting.popleft()
        if start != root and not _may_follow(start, root, visited, found):
            continue
        links: list[Path] = []
        for folder, folders, names in os.walk(start, onerror=lambda error: _keep(error, found)):
            inside = []
            for name in sorted(folders):
                path = Path(folder) / name
                if name.startswith("."):
                    found.left_out.append(UnreadableFile(path, "a hidden folder"))
                elif path.is_symlink():
                    links.append(path)
                elif (real := path.resolve()) != avoided and real not in visited:
                    visited.add(real)
                    inside.append(name)
            folders[:] = inside
            files += [Path(folder) / name for name in names]
        waiting += [link for link in links if link.resolve() != avoided]
    _add_files(files, found)
    return found


def why_not_dicom(path: Path) -> str:
    """Return why a file is no DICOM although it should be: a pointer of git-annex or Git LFS, or only by name."""
    try:
        with path.open("rb") as stream:
            head = stream.read(40)
    except OSError:
        return ""
    if head.startswith(_POINTERS):
        return f"its content is elsewhere; {_FETCH}"
    if path.suffix.lower() not in _ENDINGS or path.name.startswith("."):
        return ""
    return "it is not DICOM in spite of its name" if head else "it is empty"


def _may_follow(link: Path, root: Path, visited: set[Path], found: TreeFiles) -> bool:
    real = link.resolve()
    if root.resolve().is_relative_to(real):
        found.left_out.append(UnreadableFile(link, "a link to a folder around it"))
    elif real in visited:
        found.left_out.append(UnreadableFile(link, "a link to a folder that is read anyway"))
    else:
        visited.add(real)
        return True
    return False


def _add_files(files: list[Path], found: TreeFiles) -> None:
    seen: set[tuple[int, int]] = set()
    for path in sorted(files, key=lambda path: (path.is_symlink(), path)):
        try:
            if not path.is_file():
                if path.is_symlink() and not path.exists():
                    found.unreadable.append(UnreadableFile(path, f"the link leads nowhere; {_FETCH}"))
                continue
            status = path.stat()
        except OSError as error:
            _keep(error, found)
            continue
        if (status.st_dev, status.st_ino) in seen:
            found.num_again += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        found.paths.append(path)
    found.paths.sort()


def _keep(error: OSError, found: TreeFiles) -> None:
    found.unreadable.append(UnreadableFile(Path(error.filename), error.strerror or "cannot be opened"))
