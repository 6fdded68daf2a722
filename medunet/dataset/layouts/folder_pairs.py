"""Pair images with labels by their names: in two folders, next to each other, or with one folder per case."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from medunet.dataset.layouts.patterns import id_of, stem
from medunet.records.description import FilePatterns

_IMAGE_FOLDERS = (
    *("images", "imagestr", "image", "img", "imgs", "scans", "scan", "volumes", "volume", "ct", "mr", "mri"),
    *("raw", "data", "inputs", "input"),
)
_LABEL_FOLDERS = (
    *("labels", "labelstr", "label", "masks", "mask", "segmentations", "segmentation", "segs", "seg"),
    *("annotations", "annotation", "gt", "groundtruth", "ground_truth", "targets", "target"),
)
IMAGE_FILES = (
    "image",
    "imaging",
    "img",
    "scan",
    "volume",
    "ct",
    "mr",
    "mri",
    "t1",
    "t1c",
    "t1ce",
    "t2",
    "flair",
)
_LABEL_FILES = ("label", "labels", "mask", "seg", "segmentation", "gt", "groundtruth", "ground_truth")
_MAX_SHOWN = 4
LABEL_SUFFIX = r"(?i:[_.-](?:segmentation|seg|masks?|labels?|lbl|gt|roi))"
_IMAGE_SUFFIX = r"(?i:[_.-](?:image|img|scan|ct|mri?))"


@dataclass(frozen=True)
class NamingScheme:
    """A naming scheme by which images and labels are paired, and the pairs that it finds."""

    evidence: str  # description for the user
    patterns: FilePatterns
    pairs: tuple[tuple[str, str], ...]  # image and label
    channels: tuple[str, ...] = ()  # names of the image files of a case, if it has several


def find_pairs(paths: Sequence[str], ending: str) -> Iterator[NamingScheme]:
    """Yield the naming schemes that pair relative paths; `ending` is a regular expression of the file endings.

    A scheme is left out if a name would be used for two cases.
    """
    yield from _two_folders(paths, ending)
    yield from _side_by_side(paths, ending)
    yield from _case_folders(paths, ending)


def _two_folders(paths: Sequence[str], ending: str) -> Iterator[NamingScheme]:
    """Yield pairs of images/ and labels/, in the root or in several folders such as train/ and test/."""
    files: dict[PurePosixPath, list[str]] = defaultdict(list)
    for path in paths:
        files[PurePosixPath(path).parent].append(path)
    by_names: dict[tuple[str, str], list[PurePosixPath]] = defaultdict(list)
    for folder in files:
        if folder.name.casefold() not in _IMAGE_FOLDERS:
            continue
        for other in files:
            if other.parent == folder.parent and other.name.casefold() in _LABEL_FOLDERS:
                by_names[folder.name, other.name].append(folder.parent)
    for (images, labels), parents in by_names.items():
        flat = parents == [PurePosixPath(".")]
        image_parent = "" if flat else r"(?:(?P<test>(?:.*/)?(?i:test|testing)/)|(?:.*/)?)"
        label_parent = "" if flat else "(?:.*/)?"
        found = _best_suffixes(
            paths, f"{image_parent}{re.escape(images)}/", f"{label_parent}{re.escape(labels)}/", ending
        )
        if found:
            patterns, pairs = found
            shown = ", ".join(f"{parent}/" for parent in sorted(parents)[:_MAX_SHOWN])
            below = "" if flat else f" below {shown}{', ...' * (len(parents) > _MAX_SHOWN)}"
            yield NamingScheme(f"{images}/ with {labels}/{below}, matched by stem", patterns, pairs)


def _side_by_side(paths: Sequence[str], ending: str) -> Iterator[NamingScheme]:
    """Yield pairs in the same folder, such as CASE.nii.gz and CASE_seg.nii.gz."""
    above = "(?:.*/)?"
    label = rf"{above}(?P<id>[^/]+?){LABEL_SUFFIX}{ending}"
    for suffix in ("", rf"{_IMAGE_SUFFIX}"):
        image = rf"(?!.*{LABEL_SUFFIX}{ending}$){above}(?P<id>[^/]+?){suffix}{ending}"
        patterns = FilePatterns(image=image, label=label)
        pairs = _match(paths, patterns)
        if pairs and all(PurePosixPath(a).parent == PurePosixPath(b).parent for a, b in pairs):
            endings = Counter(_addition(a, b) if not suffix else stem(b) for a, b in pairs)
            example = endings.most_common(1)[0][0]
            yield NamingScheme(
                f"CASE next to CASE{example}" if not suffix else "CASE_… next to its label", patterns, pairs
            )
            return


def _addition(image: str, label: str) -> str:
    """Return what a label's name has after its image's name: "_seg" of x_seg.nii.gz, ".seg.nrrd" of x.seg.nrrd."""
    first = len(stem(image))
    return stem(label)[first:] or PurePosixPath(label).name[first:]


def _case_folders(paths: Sequence[str], ending: str) -> Iterator[NamingScheme]:
    """Yield pairs such as CASE/image.nii.gz and CASE/label.nii.gz; several images in a folder are channels."""
    names: dict[PurePosixPath, set[str]] = defaultdict(set)
    for path in paths:
        names[PurePosixPath(path).parent].add(stem(path))
    combinations: Counter[tuple[tuple[str, ...], str]] = Counter()
    for found in names.values():
        images = tuple(sorted(name for name in found if name.casefold() in IMAGE_FILES))
        labels = sorted(name for name in found if name.casefold() in _LABEL_FILES)
        if images and len(labels) == 1:
            combinations[images, labels[0]] += 1
    if not combinations:
        return
    (images, label), _ = combinations.most_common(1)[0]
    above = r"(?:(?:.*/)?(?P<id>[^/]+)/)?"
    several = len(images) > 1
    one = f"(?P<channel>{'|'.join(map(re.escape, images))})" if several else re.escape(images[0])
    segments = r"(?i:\.seg)?" if any(path.lower().endswith(".seg.nrrd") for path in paths) else ""
    patterns = FilePatterns(
        image=f"{above}{one}{ending}", label=f"{above}{re.escape(label)}{segments}{ending}"
    )
    pairs = _match(paths, patterns)
    if pairs:
        evidence = f"CASE/{', '.join(images)} with CASE/{label}"
        yield NamingScheme(evidence, patterns, pairs, images if several else ())


def _best_suffixes(
    paths: Sequence[str], images: str, labels: str, ending: str
) -> tuple[FilePatterns, tuple[tuple[str, str], ...]] | None:
    """Return the patterns with the most pairs, preferring those without suffixes."""
    best: tuple[FilePatterns, tuple[tuple[str, str], ...]] | None = None
    for image_suffix in ("", f"{_IMAGE_SUFFIX}?"):
        for label_suffix in ("", f"{LABEL_SUFFIX}?"):
            patterns = FilePatterns(
                image=rf"{images}(?P<id>[^/]+?){image_suffix}{ending}",
                label=rf"{labels}(?P<id>[^/]+?){label_suffix}{ending}",
            )
            pairs = _match(paths, patterns)
            if len(pairs) > (len(best[1]) if best else 0):
                best = patterns, pairs
    return best


def _match(paths: Sequence[str], patterns: FilePatterns) -> tuple[tuple[str, str], ...]:
    """Return the pairs that two patterns find; none if a name occurs in two folders."""
    image, label = re.compile(patterns.image), re.compile(patterns.label)
    images: dict[tuple[str, str], str] = {}
    labels: dict[tuple[str, str], str] = {}
    for path in paths:
        for expression, found in ((image, images), (label, labels)):
            if match := expression.fullmatch(path):
                first = found.setdefault((id_of(match), match.groupdict().get("channel") or ""), path)
                if PurePosixPath(first).parent != PurePosixPath(path).parent:
                    return ()
                break
    return tuple(
        (path, labels[name, ""]) for (name, _), path in sorted(images.items()) if (name, "") in labels
    )
