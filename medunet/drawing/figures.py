"""Write Matplotlib's figures as PNG."""

import io
from pathlib import Path

from matplotlib.figure import Figure

from medunet.base.files import atomic_write


def figure_png(figure: Figure) -> bytes:
    """Return a figure as PNG; the same figure gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None})
    return stream.getvalue()


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure to a PNG file atomically."""
    with atomic_write(path, suffix=".png") as temporary:
        temporary.write_bytes(figure_png(figure))
