"""Time of `import-dicom`, compared with reading the bytes, decoding the pixels, and SimpleITK's series reader.

python benchmarks/dicom_import.py [--data ../shared/data] [--series 4] [--slices 120] [--rounds 3] [--workers 1]

With --data, real series are imported, one at a time; without it, synthetic uncompressed CT series of 512×512 noise in
a temporary folder. All parts run in this process, in turn within each round, so that other load affects the ratios
least. Medians over the rounds are shown.

- "read": reading the bytes of all files from the page cache.
- "decode": pydicom's dcmread and pixel_array of every file, without sorting, checks or rescaling.
- "scan": headers, grouping and checks of the import, without pixels.
- "import": the complete import into a new folder: sorting, checks, rescaling, compression, flushing to disk.
- "write": the part of the import that compresses and writes the volumes.
- "again": the same import again, with nothing changed.
- "sitk": SimpleITK's ImageSeriesReader on the sorted files, and writing .nii.gz; nothing is checked.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medunet.base.processor import read_processor
from medunet.dataset.dicom.importer import import_tree
from medunet.dataset.dicom.series import read_tree
from medunet.dataset.dicom.series_checks import check_series
from medunet.imaging.nifti import write_volume

PARTS = ("read", "decode", "scan", "import", "write", "again", "sitk")


def write_ct(folder: Path, num_slices: int, seed: int) -> None:
    """Write a CT series of 512×512 slices of smooth noise in HU, which compresses about as well as a real scan."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    coarse = random.normal(0, 300, (32, 32)).repeat(16, axis=0).repeat(16, axis=1)
    for index in range(num_slices):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
        one.SeriesInstanceUID, one.StudyInstanceUID, one.FrameOfReferenceUID = series, study, frame
        one.PatientID, one.Modality, one.InstanceNumber = f"benchmark {seed}", "CT", index + 1
        one.ImagePositionPatient = [-200, -200, 2 * index]
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        one.PixelSpacing, one.SliceThickness = [0.8, 0.8], 2
        one.Rows, one.Columns, one.SamplesPerPixel, one.PhotometricInterpretation = 512, 512, 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        values = coarse + random.normal(0, 12, (512, 512)) + 1024
        one.PixelData = values.clip(0, 4095).astype(np.uint16).tobytes()
        one.save_as(folder / f"{index:04d}", enforce_file_format=True)


def read_bytes(files: list[Path]) -> None:
    """Read all bytes of every file."""
    for path in files:
        path.read_bytes()


def decode(files: list[Path]) -> None:
    """Decode every file's pixels."""
    for path in files:
        _ = pydicom.dcmread(path).pixel_array


def scan(tree: Path) -> None:
    """Read the headers and check the series."""
    for series in read_tree(tree, workers=1).series:
        check_series(series)


def write_again(images: Path, folder: Path) -> float:
    """Return the seconds needed to write the same volumes again."""
    seconds = 0.0
    for path in images.iterdir():
        image = nib.load(path)
        array = np.asanyarray(image.dataobj)
        start = time.perf_counter()
        write_volume(folder / path.name, array, image.affine)
        seconds += time.perf_counter() - start
    return seconds


def read_by_simpleitk(tree: Path, folder: Path) -> None:
    """Read each series in slice order with SimpleITK, and write it as .nii.gz."""
    for number, series in enumerate(read_tree(tree, workers=1).series):
        (part,) = check_series(series)
        assert part.stack is not None
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(one.file.path) for one in part.stack.slices])
        sitk.WriteImage(reader.Execute(), str(folder / f"{number}.nii.gz"), useCompression=True)


def clock(call: Callable[[], object]) -> float:
    """Return the duration of a call in seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(tree: Path, rounds: int, workers: int) -> dict[str, float]:
    """Return the median seconds of each part."""
    files = [path for path in sorted(tree.rglob("*")) if path.is_file()]
    read_bytes(files)
    times: dict[str, list[float]] = {part: [] for part in PARTS}
    for _ in range(rounds):
        with TemporaryDirectory() as name:
            out, others = Path(name) / "out", Path(name) / "others"
            others.mkdir()
            times["read"].append(clock(lambda: read_bytes(files)))
            times["decode"].append(clock(lambda: decode(files)))
            times["scan"].append(clock(lambda: scan(tree)))
            times["import"].append(clock(lambda out=out: import_tree(tree, out, workers=workers)))
            times["write"].append(write_again(out / "images", others))
            times["again"].append(clock(lambda out=out: import_tree(tree, out, workers=workers)))
            times["sitk"].append(clock(lambda others=others: read_by_simpleitk(tree, others)))
    return {part: statistics.median(values) for part, values in times.items()}


def show(name: str, tree: Path, times: dict[str, float]) -> None:
    """Print a row of the table."""
    files = [path for path in tree.rglob("*") if path.is_file()]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    cells = [f"{times[part]:9.3f}" for part in PARTS]
    ratio = times["import"] / (times["decode"] + times["write"])
    print(
        f"{name:24}{len(files):7}{megabytes:8.1f}{''.join(cells)}{ratio:10.2f}{len(files) / times['import']:10.0f}"
    )


def main() -> None:
    """Measure real or synthetic series and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--series", type=int, default=4)
    parser.add_argument("--slices", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    head = "".join(f"{part:>9}" for part in PARTS)
    print(read_processor().describe())
    print(f"seconds{'':17}{'files':>7}{'MB':>8}{head}{'of both':>10}{'files/s':>10}")
    print(f"{'':24}{'':15}{'':63}  import / (decode + write)")
    if options.data is not None:
        for folder in (
            "mr_dicom_series/12-T1post-05670",
            "mr_dicom_series/32500-dT1-49467",
            "ct_dicom_series/series",
        ):
            tree = options.data / folder
            show(tree.name, tree, measure(tree, options.rounds, options.workers))
        return
    with TemporaryDirectory() as name:
        for number in range(options.series):
            write_ct(Path(name) / str(number), options.slices, number)
        shown = f"{options.series} CT of {options.slices}"
        show(shown, Path(name), measure(Path(name), options.rounds, options.workers))


if __name__ == "__main__":
    main()
