"""Find the cases of a data root by matching relative POSIX paths against the layout's file patterns."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, NoReturn

from medunet.base.errors import InputError
from medunet.imaging.formats import (
    LABEL_PICTURES,
    PICTURES,
    SCANS,
    VOLUMES,
    endings_of,
    expression_of,
    header_of_pair,
    strip_ending,
)
from medunet.records.description import Description
from medunet.records.manifest import Case, Split, Unmatched, make_case

_SCAN = expression_of(SCANS)
_PICTURE = expression_of(PICTURES)
IMPORT_FIRST = "Import the series first, with `medunet import-dicom TREE OUT`, and give the folder OUT."
_EXPECTED = {
    "msd": "imagesTr/CASE.nii.gz with labelsTr/CASE.nii.gz, test images in imagesTs/",
    "pairs": "images/CASE.nii.gz with labels/CASE.nii.gz (or imagesTr/, labelsTr/), or the description's `files`",
    "lits": "volume-N.nii with segmentation-N.nii, in any sub-folder",
    "brats": "CASE_t1.nii.gz and so on with CASE_seg.nii.gz, in any sub-folder",
    "brats2023": "CASE-t1n.nii.gz and so on with CASE-seg.nii.gz, in any sub-folder",
    "png": "images/CASE.png with labels/CASE.png; .tif and .tiff too, images also .jpg; or the description's `files`",
    "nnunet": "imagesTr/CASE_0000.nii.gz, one file per channel, with labelsTr/CASE.nii.gz, test images in imagesTs/",
    "bids": "sub-*/[ses-*/]anat/*_T1w.nii.gz with derivatives/**/*_dseg.nii.gz or *_mask.nii.gz",
    "csv": "the files listed in the description's table",
}


@dataclass(frozen=True)
class Listing:
    """The cases of a data root, sorted by id, and the files that belong to no case."""

    cases: tuple[Case, ...]
    unmatched: tuple[Unmatched, ...]

    @property
    def paths(self) -> frozenset[str]:
        """The files of all cases."""
        files = {path for case in self.cases for path in case.images.values()}
        return frozenset(files | {case.label for case in self.cases if case.label is not None})


@dataclass(frozen=True)
class FilePattern:
    """A regular expression for the whole relative path of an image or label, with the case id in group `id`.

    The optional group `channel` is the channel's file ending; without it one file has all channels. An image of split
    "train" needs a label. If `split` is None, the image is of split "test" if a group `test` matches, otherwise of
    "train" with a label or "unlabelled" without one.
    """

    role: Literal["image", "label"]
    expression: re.Pattern[str]
    split: Split | None = None
    case_id: str = "{id}"


@dataclass
class _Files:
    """The files found so far for one case id."""

    images: dict[str, str] = field(default_factory=dict)
    label: str | None = None
    split: Split | None = None


def scan_folder(description: Description, data_root: Path) -> Listing:
    """Find the cases of a data root by the file names of its layout, without folds.

    Raises:
        InputError: the layout is not supported, or the description's patterns cannot be used.
    """
    patterns = file_patterns(description)
    channel_of = channel_endings(description)
    found: dict[str, _Files] = {}
    unmatched: list[Unmatched] = []
    for path in volume_files(description, data_root):
        pattern, match = next(
            ((each, hit) for each in patterns if (hit := each.expression.fullmatch(path))), (None, None)
        )
        if pattern is None or match is None:
            reason = (
                "belongs to no case" if header_of_pair(path) == path else "voxels without their header, .hdr"
            )
            unmatched.append(Unmatched(path=path, reason=reason))
            continue
        groups = match.groupdict()
        # Group `id` may be empty for files directly in the data root: one case, named after its image.
        files = found.setdefault(pattern.case_id.format(id=id_of(match)), _Files())
        if pattern.role == "label":
            if files.label is None:
                files.label = path
                continue
        else:
            ending = groups.get("channel")
            if ending and ending not in channel_of:
                unmatched.append(Unmatched(path=path, reason="belongs to no channel"))
                continue
            names = [channel_of[ending]] if ending else list(description.channels)
            if not any(name in files.images for name in names):
                files.images.update(dict.fromkeys(names, path))
                files.split = "test" if groups.get("test") else pattern.split
                continue
        unmatched.append(Unmatched(path=path, reason=f"a second {pattern.role} of one case"))
    cases = []
    for case_id, files in found.items():
        case, left_over = _assemble(case_id, files, description)
        cases += [case] if case else []
        unmatched += left_over
    return Listing(
        tuple(sorted(cases, key=lambda case: case.id)), tuple(sorted(unmatched, key=lambda item: item.path))
    )


def make_listing(cases: Iterable[Case], source: str, description: Description, data_root: Path) -> Listing:
    """Return the listing of the cases in the file `source`; volume files that it does not list are unmatched."""
    ordered = tuple(sorted(cases, key=lambda case: case.id))
    listed = {file for case in ordered for file in (*case.images.values(), case.label)}
    unmatched = tuple(
        Unmatched(path=file, reason=f"not listed in {source}")
        for file in volume_files(description, data_root)
        if file not in listed
    )
    return Listing(ordered, unmatched)


def volume_files(description: Description, data_root: Path) -> list[str]:
    """Return the volume files below the data root as sorted POSIX paths, without hidden ones (`._x`).

    Pictures are included only if the layout is of pictures; next to volumes they are previews and the like. Of a
    volume in two files, x.hdr and x.img, only the header is included.

    Raises:
        InputError: a folder cannot be listed, or names of volumes are not in UTF-8.
    """
    endings = endings_of((*VOLUMES, *PICTURES) if description.layout == "png" else VOLUMES)
    found = {path for path in walk_files(data_root) if path.lower().endswith(endings)}
    if foreign := sorted(ascii(path) for path in found if not path.isascii() and not _is_unicode(path)):
        raise InputError(
            f"names of files are not in UTF-8: {', '.join(foreign[:4])}{', ...' * (len(foreign) > 4)}",
            where=data_root.absolute().name,
            hint="Rename these files.",
        )
    return sorted(path for path in found if (header := header_of_pair(path)) == path or header not in found)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)  # bytes that Python could not decode


def walk_files(data_root: Path) -> Iterator[str]:
    """Yield every file below a folder as a POSIX path, without hidden ones; links to folders are followed once.

    Raises:
        InputError: a folder cannot be listed.
    """
    seen = {str(folder) for folder in Path(os.path.realpath(data_root)).parents}
    for folder, names, file_names in os.walk(data_root, followlinks=True, onerror=_refuse_unlisted):
        resolved = os.path.realpath(folder)
        if resolved in seen:  # a link to a folder that was visited
            names.clear()
            continue
        seen.add(resolved)
        names[:] = sorted(name for name in names if not name.startswith("."))
        relative = Path(folder).relative_to(data_root)
        yield from ((relative / name).as_posix() for name in file_names if not name.startswith("."))


def expected_files(description: Description) -> str:
    """Return a text that describes the files expected by the description's layout."""
    return _EXPECTED[description.layout]


def stem(path: str) -> str:
    """Return a path's file name without the ending, if it is one of a supported volume or picture."""
    return strip_ending(PurePosixPath(path).name)


def id_of(match: re.Match[str]) -> str:
    """Return the group `id` of a matched path, without what belongs to the file's ending: x of x.seg.nrrd."""
    name = PurePosixPath(match.string).name
    end = len(match.string) - len(name) + len(strip_ending(name))
    return match.string[match.start("id") : min(match.end("id"), end)] if match["id"] else ""


def _refuse_unlisted(error: OSError) -> NoReturn:
    raise InputError(
        f"cannot be listed ({error.strerror})",
        where=str(error.filename),
        hint="Get permission to read this folder, or move it out of the data root.",
    ) from error


def _assemble(
    case_id: str, files: _Files, description: Description
) -> tuple[Case | None, Iterable[Unmatched]]:
    """Return the case made of an id's files, or None; and the files that are not used, with the reason."""
    missing = [name for name in description.channels if name not in files.images]
    paths = list(dict.fromkeys(files.images.values()))
    if not files.images and files.label:
        return None, [Unmatched(path=files.label, reason="label without an image")]
    if missing:
        reason = f"its case lacks channel {', '.join(missing)}"
        paths += [files.label] if files.label else []
        return None, [Unmatched(path=path, reason=reason) for path in paths]
    if files.split == "train" and files.label is None:
        return None, [Unmatched(path=path, reason="image without a label") for path in paths]
    case_id = case_id or stem(paths[0])
    images = {name: files.images[name] for name in description.channels}
    split = files.split or ("train" if files.label else "unlabelled")
    return make_case(description, case_id, images, label=files.label, split=split), []


def channel_endings(description: Description) -> dict[str, str]:
    """Return the channel of each file ending; nnU-Net's default endings are _0000, _0001, ..."""
    numbered = description.layout == "nnunet"
    return {
        ending: name
        for number, (name, channel) in enumerate(description.channels.items())
        for ending in channel.endings or ((f"_{number:04d}",) if numbered else ())
    }


def file_patterns(description: Description) -> tuple[FilePattern, ...]:
    """Return the patterns of the layout's files, labels and images.

    Raises:
        InputError: the layout is not supported, or the description's patterns cannot be used.
    """
    case_file = rf"(?P<id>[^/]+?){_SCAN}"
    match description.layout:
        case "pairs" | "png" | "bids" if description.files is not None:
            return (
                FilePattern("image", _user_pattern(description.files.image, "files.image")),
                FilePattern("label", _user_pattern(description.files.label, "files.label")),
            )
        case "msd" | "pairs" as layout:
            images, labels = ("imagesTr", "labelsTr") if layout == "msd" else ("images(Tr)?", "labels(Tr)?")
            return _train_and_test(case_file, case_file, images, labels)
        case "png":
            return (
                FilePattern("image", re.compile(rf"images/(?P<id>[^/]+){_PICTURE}"), "train"),
                FilePattern("label", re.compile(rf"labels/(?P<id>[^/]+){expression_of(LABEL_PICTURES)}")),
            )
        case "nnunet":
            channel = "|".join(re.escape(ending) for ending in channel_endings(description))
            image, label = (
                rf"(?P<id>[^/]+)(?P<channel>{channel}){_SCAN}",
                rf"(?P<id>[^/]+?){_SCAN}",
            )
            return _train_and_test(image, label)
        case "lits":
            number = rf"(?P<id>\d+){_SCAN}"
            return (
                FilePattern("image", re.compile(f"(.*/)?volume-{number}"), case_id="volume-{id}"),
                FilePattern("label", re.compile(f"(.*/)?segmentation-{number}"), case_id="volume-{id}"),
                FilePattern(
                    "image", re.compile(f"(.*/)?test-volume-{number}"), "test", case_id="test-volume-{id}"
                ),
            )
        case "brats" | "brats2023":
            endings = [ending for channel in description.channels.values() for ending in channel.endings]
            if any(not channel.endings for channel in description.channels.values()):
                raise InputError(
                    f"layout {description.layout} needs the file endings of every channel",
                    where=f"description {description.name}",
                    hint="Give each channel its `endings`, such as [_t1ce].",
                )
            alternatives = "|".join(re.escape(ending) for ending in sorted(endings, key=len, reverse=True))
            return (
                FilePattern("label", re.compile(rf"(.*/)?(?P<id>[^/]+?)[_-]seg{_SCAN}")),
                FilePattern("image", re.compile(rf"(.*/)?(?P<id>[^/]+?)(?P<channel>{alternatives}){_SCAN}")),
            )
        case "dicom":
            raise InputError(
                "layout 'dicom' cannot be used for training directly",
                where=f"description {description.name}",
                hint=IMPORT_FIRST,
            )
        case other:
            raise InputError(
                f"layout '{other}' is not supported",
                where=f"description {description.name}",
                hint=f"Use one of: {', '.join(_EXPECTED)}.",
            )


def _train_and_test(
    image: str, label: str, images: str = "imagesTr", labels: str = "labelsTr"
) -> tuple[FilePattern, ...]:
    """Return the patterns of files `image` and `label` in two folders of training cases and two of test cases."""
    return (
        FilePattern("image", re.compile(f"{images}/{image}"), "train"),
        FilePattern("label", re.compile(f"{labels}/{label}")),
        FilePattern("image", re.compile(f"imagesTs/{image}"), "test"),
        FilePattern("label", re.compile(f"labelsTs/{label}")),
    )


def _user_pattern(text: str, key: str) -> re.Pattern[str]:
    try:
        expression = re.compile(text)
    except re.error as error:
        raise InputError(f"not a regular expression ({error})", where=key) from error
    if "id" not in expression.groupindex:
        raise InputError("has no group named id", where=key, hint="Write (?P<id>[^/]+) for the case id.")
    return expression
