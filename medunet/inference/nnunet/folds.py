"""Average the logits of several models with the same plan, as nnU-Net averages the folds of a model."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from medunet.imaging.volume import Volume
from medunet.inference.restore import restore_labels
from medunet.inference.stream import Slab, WindowStream, open_stream
from medunet.records.config import InferenceConfig

if TYPE_CHECKING:
    from medunet.inference.memory import Way
    from medunet.inference.model import Model
    from medunet.inference.prepare import Prepared


def average_slabs(streams: Sequence[WindowStream]) -> Iterator[Slab]:
    """Yield the slabs of streams over the same image, which finish the same slices, with their mean logits."""
    for slabs in zip(*(stream.slabs() for stream in streams), strict=True):
        first, *others = slabs
        for other in others:
            assert other.start == first.start
            first.logits.add_(other.logits)
        first.logits.div_(len(slabs))
        yield first


def compute_folds(
    models: Sequence["Model"], prepared: "Prepared", config: InferenceConfig | None = None
) -> NDArray[np.uint8]:
    """Return the label map `(I, J, K)` of the mean logits of imported models, the folds of one model of nnU-Net.

    Args:
        prepared: the scan as any of the models prepares it: they share the plan and the rules.
        config: None: the models' own.

    Raises:
        DataError: as `Model.compute`. The memory for the sums of one fold is counted, not for those of all.
    """
    first, card = models[0], models[0].card
    options, placement = config or card.inference, prepared.placement
    assert placement is not None

    def run(way: "Way") -> NDArray[np.uint8]:
        streams = [
            open_stream(
                model.backend,
                prepared.image.as_tensor(),
                card.plan,
                options,
                regions=bool(card.description.regions),
                batch=way.batch,
                accumulate_on=model.backend.device if way.sums_on_card else torch.device("cpu"),
                as_nnunet=True,
            )
            for model in models
        ]
        slabs = average_slabs(streams)
        return restore_labels(slabs, streams[0].axis, placement, card.description, of_logits=True)

    return first.memory.compute(prepared.shape, prepared.image.shape[1:], options, run)


def predict_folds(models: Sequence["Model"], volume: Volume) -> NDArray[np.uint8]:
    """Return the label map `(I, J, K)` of a scan `(C, I, J, K)`, which is not changed, by the folds' mean logits."""
    prepared = models[0].prepare_volume(Volume(volume.array.copy(), volume.header))
    return compute_folds(models, prepared)
