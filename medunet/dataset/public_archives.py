"""Table of the public archives known to `medunet fetch`, with URLs and checksums.

URLs and MD5 sums are from MONAI's DecathlonDataset (monai/apps/datasets.py); sizes are approximate.
"""

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from medunet.base.errors import InputError

_BUCKET = "https://msd-for-monai.s3-us-west-2.amazonaws.com"
_HEX_DIGITS: dict[Literal["md5", "sha256"], int] = {"md5": 32, "sha256": 64}


@dataclass(frozen=True)
class Checksum:
    """The expected checksum of an archive."""

    algorithm: Literal["md5", "sha256"]
    hexadecimal: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hexadecimal}"


@dataclass(frozen=True)
class Archive:
    """An archive to download, the folder to unpack it to, and the name of the dataset's description, if any."""

    name: str
    folder: str
    url: str
    checksum: Checksum
    dataset: str | None = None
    size_gb: float | None = None


def _decathlon(task: str, md5: str, size_gb: float) -> Archive:
    number, words = task[4:6], re.findall("[A-Z][a-z]+", task[7:])
    return Archive(
        name="-".join(words).lower(),
        folder=task,
        url=f"{_BUCKET}/{task}.tar",
        checksum=Checksum("md5", md5),
        dataset=f"msd_task{number}_{'_'.join(words).lower()}",
        size_gb=size_gb,
    )


ARCHIVES = {
    archive.name: archive
    for archive in (
        _decathlon("Task01_BrainTumour", "240a19d752f0d9e9101544901065d872", 7.1),
        _decathlon("Task02_Heart", "06ee59366e1e5124267b774dbd654057", 0.4),
        _decathlon("Task03_Liver", "a90ec6c4aa7f6a3d087205e23d4e6397", 27.0),
        _decathlon("Task04_Hippocampus", "9d24dba78a72977dbd1d2e110310f31b", 0.03),
        _decathlon("Task05_Prostate", "35138f08b1efaef89d7424d2bcc928db", 0.2),
        _decathlon("Task06_Lung", "8afd997733c7fc0432f71255ba4e52dc", 8.5),
        _decathlon("Task07_Pancreas", "4f7080cfca169fa8066d17ce6eb061e4", 11.4),
        _decathlon("Task08_HepaticVessel", "641d79e80ec66453921d997fbf12a29c", 8.7),
        _decathlon("Task09_Spleen", "410d4a301da4e5b2f6f86ec3ddba524e", 1.5),
        _decathlon("Task10_Colon", "bad7a188931dc2f6acf72b08eb6202d0", 5.8),
    )
}


def choose_archive(name: str, url: str | None = None, checksum: str | None = None) -> Archive:
    """Return a public archive by name, with the given URL and checksum if any; or one with a new name.

    Raises:
        InputError: an unknown name is given without a URL or without a checksum, or cannot be a folder name.
    """
    known = ARCHIVES.get(name.lower().replace("_", "-"))
    known = known or next((each for each in ARCHIVES.values() if each.folder.lower() == name.lower()), None)
    given = None if checksum is None else parse_checksum(checksum)
    if known is not None:
        return Archive(
            known.name, known.folder, url or known.url, given or known.checksum, known.dataset, known.size_gb
        )
    if url is None:
        close = difflib.get_close_matches(name.lower(), ARCHIVES, n=1)
        meant = f"Did you mean {close[0]}? " if close else ""
        raise InputError(
            f"there is no public archive '{name}'",
            where="medunet fetch",
            hint=f"{meant}Choose one of {', '.join(ARCHIVES)}; or add --url and --checksum.",
        )
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name):
        raise InputError(
            f"'{name}' cannot name the archive's folder",
            where="medunet fetch",
            hint="Use letters, digits, '-', '_' and '.', and do not start with '.'.",
        )
    if given is None:
        raise InputError(
            "an archive that is not listed needs a checksum",
            where="--checksum",
            hint="Add --checksum sha256:HEX, from its web page or from `sha256sum` of a copy that you trust.",
        )
    return Archive(name, name, url, given)


def parse_checksum(text: str) -> Checksum:
    """Parse `md5:HEX`, `sha256:HEX`, or only the hexadecimal digits, whose number identifies the algorithm.

    Raises:
        InputError: it is none of these.
    """
    algorithm, _, digits = text.strip().lower().rpartition(":")
    for name, num_digits in _HEX_DIGITS.items():
        if algorithm in ("", name) and re.fullmatch(f"[0-9a-f]{{{num_digits}}}", digits):
            return Checksum(name, digits)
    raise InputError(f"'{text}' is not a checksum", where="--checksum", hint="Write md5:HEX or sha256:HEX.")
