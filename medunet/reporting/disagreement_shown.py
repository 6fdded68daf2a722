"""Where the networks of an ensemble disagree on a scan without a reference: a picture, and how much it is."""

import math
from dataclasses import dataclass

import numpy as np

from medunet.drawing.disagreement import draw_disagreement
from medunet.drawing.orthogonal import PLANES, depth_text
from medunet.drawing.scene import largest_cross_sections
from medunet.imaging.geometry import spacing_of
from medunet.reporting.errors_shown import Stills
from medunet.reporting.page import data_uri, number_text
from medunet.reporting.scans import Scan


@dataclass(frozen=True)
class Disagreement:
    """The picture of where networks disagree; None if they agree everywhere."""

    still: str | None  # data URI
    caption: str


def show_disagreement(scan: Scan, stills: Stills, num_networks: int) -> Disagreement | None:
    """Return where and on how much the networks disagree; None without the map of agreement, or for one network."""
    if scan.agreement is None or num_networks < 2:
        return None
    differing = (num_networks - np.minimum(scan.agreement, num_networks)).astype(np.uint8)
    where = differing > 0
    if not where.any():
        return Disagreement(None, f"All {num_networks} networks agree on every voxel.")
    num_voxels, centre = int(np.count_nonzero(where)), largest_cross_sections(where)
    num_shown = int(np.count_nonzero(where[:, :, centre[2]]))
    if scan.unit == "px":
        text = f"The {num_networks} networks disagree on {num_voxels:,} pixels, before postprocessing"
    else:
        voxel_ml = math.prod(spacing_of(scan.affine)) / 1000
        depth = depth_text(PLANES[0], (scan.affine @ (*centre, 1))[:3].tolist())
        text = (
            f"The {num_networks} networks disagree on {number_text(voxel_ml * num_voxels, 2)} ml "
            f"({num_voxels:,} voxels), before postprocessing. These are the planes with the most such voxels: "
            f"{number_text(voxel_ml * num_shown, 2)} ml in the axial slice {depth}"
        )
    still = draw_disagreement(stills.view(), differing, num_networks)
    return Disagreement(data_uri(still), text)
