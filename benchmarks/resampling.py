"""Time and error of resampling an image and its label to a plan's grid: medunet, MONAI, nnU-Net and SimpleITK.

python benchmarks/resampling.py [--threads 1] [--rounds 3]

The scene is defined in world mm: balls of 4 to 12 mm radius, every fourth with label 2, with edges 2 mm wide in the
image. It is scanned at one spacing and resampled to another. The ground truth is the scene at the voxel centres of
the grid that each method produces. Arrays are in memory. The methods are measured in turn within each round, and the
best round is reported.

- "medunet" interpolates images linearly and gives each voxel the label with the largest share. "0.4.0" is MONAI's
  `Spacingd` as used by medunet 0.4.0, bilinear in float32 and nearest. "SimpleITK" is linear and nearest.
- "nnU-Net's way" reimplements its preprocessing: `skimage.transform.resize` of order 3 for images, order 1 and a
  threshold for each label; if slices are more than 3 times thicker than wide, in-plane and with the nearest slice.
- "image %": root mean square error near the balls' edges, relative to the contrast. "Dice": of all labels.
- "shift mm": mean shift of the balls' centroids. "volume %": mean change of the balls' volumes. The task "coarser"
  halves the resolution along all axes except for an odd voxel: Spacingd then takes every second voxel, which equals
  the ground truth by construction.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable

THREADS = sys.argv[sys.argv.index("--threads") + 1] if "--threads" in sys.argv else "1"
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), THREADS))

import numpy as np  # noqa: E402 - threads are set before NumPy is loaded
import SimpleITK as sitk  # noqa: E402
import torch  # noqa: E402
from monai.data.meta_tensor import MetaTensor  # noqa: E402
from monai.transforms.spatial.array import Resize, Spacing  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from skimage.transform import resize  # noqa: E402

from medunet.base.processor import read_processor  # noqa: E402
from medunet.transforms.resampling import resample_labels, size_at_spacing  # noqa: E402

EXTENT_MM = (190.0, 170.0, 150.0)
TASKS = {  # spacing of the scan and of the plan, mm
    "finer": ((3.0, 3.0, 4.0), (1.5, 1.5, 2.0)),
    "coarser": ((1.5, 1.5, 2.0), (3.0, 3.0, 4.0)),
    "about as fine": ((1.9, 1.9, 2.5), (2.1, 2.1, 3.0)),
    "thick slices": ((1.4, 1.4, 5.0), (1.7, 1.7, 6.0)),
}
Triple = tuple[float, float, float]
Image, Label = NDArray[np.float32], NDArray[np.uint8]
Result = tuple[
    Image, Label, NDArray[np.float64], NDArray[np.float64]
]  # and first voxel centre and spacing in mm
Method = Callable[[Image, Label, Triple, Triple], Result]


class Scene:
    """Random balls that do not touch, in mm from the corner of the field of view."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        places: list[NDArray[np.float64]] = []
        radii: list[float] = []
        while len(places) < 60:
            place, radius = rng.uniform(16, np.array(EXTENT_MM) - 16), rng.uniform(4, 12)
            if all(np.linalg.norm(place - p) > radius + r + 8 for p, r in zip(places, radii, strict=True)):
                places.append(place)
                radii.append(radius)
        self.places, self.radii = np.array(places), np.array(radii)

    def scan(
        self, shape: tuple[int, ...], first_mm: NDArray[np.float64], step_mm: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8]]:
        """Return image (0 to 1), label, and number of the nearest ball at the voxel centres of a grid."""
        index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
        points = first_mm + step_mm * index
        depth = np.full(shape, -np.inf)
        nearest = np.zeros(shape, np.uint8)
        for number, (place, radius) in enumerate(zip(self.places, self.radii, strict=True)):
            inside = radius - np.linalg.norm(points - place, axis=-1)
            nearest[inside > depth] = number
            np.maximum(depth, inside, out=depth)
        image = (1 / (1 + np.exp(-np.clip(depth, -30, 30) / 0.5))).astype(np.float32)
        label = np.where(depth > 0, 1 + (nearest % 4 == 0), 0).astype(np.uint8)
        return image, label, nearest


def by_medunet(image: Image, label: Label, spacing_mm: Triple, target_mm: Triple) -> Result:
    """Resample as medunet's training and prediction do."""
    size = size_at_spacing(image.shape, spacing_mm, target_mm)
    step = np.multiply(image.shape, spacing_mm) / size
    new = Resize(size, mode="trilinear", align_corners=False)(torch.from_numpy(image)[None])
    return new[0].numpy(), resample_labels(label, size), step / 2, step


def by_spacingd(image: Image, label: Label, spacing_mm: Triple, target_mm: Triple) -> Result:
    """Resample with MONAI's Spacing, as medunet did up to 0.4.0."""
    affine = torch.diag(torch.tensor([*spacing_mm, 1.0], dtype=torch.float64))
    new = [
        Spacing(target_mm, mode=mode, padding_mode="border", dtype=np.float32)(
            MetaTensor(torch.from_numpy(array)[None].float(), affine=affine)
        )[0].numpy()
        for array, mode in ((image, "bilinear"), (label, "nearest"))
    ]
    return new[0], new[1].astype(np.uint8), np.array(spacing_mm) / 2, np.array(target_mm)


def by_nnunet(image: Image, label: Label, spacing_mm: Triple, target_mm: Triple) -> Result:
    """Resample as nnU-Net's preprocessing does (`resample_data_or_seg` of nnunetv2 2.8)."""
    size = size_at_spacing(image.shape, spacing_mm, target_mm)
    in_plane = max(spacing_mm) > 3 * min(spacing_mm)
    step = np.multiply(image.shape, spacing_mm) / size
    labels = np.zeros(size, np.uint8)
    for value in np.unique(label):
        labels[_by_skimage((label == value).astype(float), size, 1, in_plane=in_plane) >= 0.5] = value
    new = _by_skimage(image.astype(float), size, 3, in_plane=in_plane).astype(np.float32)
    return new, labels, step / 2, step


def _by_skimage(
    array: NDArray[np.float64], size: tuple[int, ...], order: int, *, in_plane: bool
) -> NDArray[np.float64]:
    if not in_plane:
        return resize(array, size, order=order, mode="edge", anti_aliasing=False)
    planes = [
        resize(array[..., k], size[:2], order=order, mode="edge", anti_aliasing=False)
        for k in range(array.shape[2])
    ]
    places = (np.arange(size[2]) + 0.5) * array.shape[2] / size[2] - 0.5
    return np.stack(planes, -1)[..., np.clip(np.rint(places), 0, array.shape[2] - 1).astype(int)]


def by_simpleitk(image: Image, label: Label, spacing_mm: Triple, target_mm: Triple) -> Result:
    """Resample with SimpleITK's filter to medunet's grid."""
    size = size_at_spacing(image.shape, spacing_mm, target_mm)
    step = np.multiply(image.shape, spacing_mm) / size
    new = []
    for array, how in ((image, sitk.sitkLinear), (label, sitk.sitkNearestNeighbor)):
        volume = sitk.GetImageFromArray(array.transpose(2, 1, 0))
        volume.SetSpacing(spacing_mm)
        volume.SetOrigin((np.array(spacing_mm) / 2).tolist())
        origin = (step / 2).tolist()
        resampled = sitk.Resample(
            volume, size, sitk.Transform(), how, origin, step.tolist(), useNearestNeighborExtrapolator=True
        )
        new.append(sitk.GetArrayFromImage(resampled).transpose(2, 1, 0))
    return new[0], new[1], step / 2, step


METHODS: dict[str, Method] = {
    "medunet": by_medunet,
    "0.4.0": by_spacingd,
    "nnU-Net's way": by_nnunet,
    "SimpleITK": by_simpleitk,
}


def format_errors(result: Result, scene: Scene) -> str:
    """Return the table columns with the errors of a method."""
    image, label, first, step = result
    truth, wanted, nearest = scene.scan(label.shape, first, step)
    edges = np.abs(truth - 0.5) < 0.495
    error = 100 * float(np.sqrt(np.mean((image - truth)[edges] ** 2)))
    dice = 2 * ((label == wanted) & (wanted > 0)).sum() / ((label > 0).sum() + (wanted > 0).sum())
    shifts, changes = [], []
    for number, (place, radius) in enumerate(zip(scene.places, scene.radii, strict=True)):
        index = np.argwhere((label > 0) & (nearest == number))
        shifts.append(first + step * index.mean(axis=0) - place)
        changes.append(100 * (len(index) * step.prod() / (4 / 3 * np.pi * radius**3) - 1))
    shift = float(np.linalg.norm(np.mean(shifts, axis=0)))
    return f"{error:8.2f}{dice:8.3f}{shift:10.3f}{np.mean(changes):10.2f}"


def main() -> None:
    """Measure all methods on all tasks and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(given.threads)
    scene = Scene()
    print(f"{read_processor().describe()}, {given.threads} thread(s)")
    print(f"{'task':16}{'method':16}{'ms':>8}{'image %':>8}{'Dice':>8}{'shift mm':>10}{'volume %':>10}")
    for task, (spacing_mm, target_mm) in TASKS.items():
        shape = tuple(round(mm / step) for mm, step in zip(EXTENT_MM, spacing_mm, strict=True))
        image, label, _ = scene.scan(shape, np.array(spacing_mm) / 2, np.array(spacing_mm))
        seconds = dict.fromkeys(METHODS, np.inf)
        results = {}
        for _ in range(given.rounds):
            for name, method in METHODS.items():
                start = time.perf_counter()
                results[name] = method(image, label, spacing_mm, target_mm)
                seconds[name] = min(seconds[name], time.perf_counter() - start)
        for name in METHODS:
            print(f"{task:16}{name:16}{1000 * seconds[name]:8.0f}{format_errors(results[name], scene)}")


if __name__ == "__main__":
    main()
