"""Tidied label maps against plain functions of SciPy on the whole volume, for random maps, targets and steps."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, signal

from medunet.postprocessing import boxes, tidy
from medunet.postprocessing.morphology import make_ball
from medunet.postprocessing.tidy import tidy_labels
from medunet.records.config import PostprocessStep

SPACING_MM = (1.0, 0.7, 2.0)
TOUCHING = np.ones((3, 3, 3))
TARGETS = {
    "exclusive": ({"a": (1,), "b": (2,), "c": (3,)}, {"a": 1, "b": 2, "c": 3}),
    "nested": ({"a": (1, 2, 3), "b": (2, 3), "c": (3,)}, {"a": 1, "b": 2, "c": 3}),
}
STEPS = [
    *({"keep_largest": True}, {"fill_holes": True}, {"min_volume_ml": 0.01}, {"inside": "a"}),
    *({"opening_mm": 1.5}, {"closing_mm": 2.2}, {"dilation_mm": 2.0}, {"erosion_mm": 1.1}),
    *({"median_mm": 1.5}, {"gaussian_mm": 0.9}),
]


def spread(mask: np.ndarray, ball: np.ndarray) -> np.ndarray:
    return signal.fftconvolve(mask.astype(float), ball.astype(float), mode="same") > 0.5


def apply_whole(mask: np.ndarray, key: str, value: float) -> np.ndarray:
    """A step by SciPy, on the whole volume; it goes on beyond its border as there."""
    if not mask.any():
        return mask
    if key == "keep_largest":
        labels, _ = ndimage.label(mask, TOUCHING)
        return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    if key == "min_volume_ml":
        labels, _ = ndimage.label(mask, TOUCHING)
        least = math.ceil(value * 1000 / math.prod(SPACING_MM) / (1 + 1e-6))
        return mask & (np.bincount(labels.ravel()) >= least)[labels]
    if key == "fill_holes":
        background, _ = ndimage.label(~mask)
        sides = [background.take((0, -1), axis).ravel() for axis in range(3) if mask.shape[axis] > 1]
        return mask | ~np.isin(background, [0, *np.concatenate(sides)])
    if key == "gaussian_mm":
        sigma = [value / step for step in SPACING_MM]
        return ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="nearest") > 0.5
    ball = make_ball(value, SPACING_MM, mask.shape)
    far = [(size // 2,) * 2 for size in ball.shape]
    inner = tuple(slice(pad, pad + size) for (pad, _), size in zip(far, mask.shape, strict=True))
    if key == "dilation_mm":
        return spread(mask, ball)
    if key == "erosion_mm":
        return ~spread(~mask, ball)
    wide = np.pad(mask, far, mode="edge")
    if key == "closing_mm":
        return ~spread(~spread(wide, ball), ball)[inner]
    if key == "opening_mm":
        return spread(~spread(~wide, ball), ball)[inner]
    counts = signal.fftconvolve(wide.astype(float), ball.astype(float), mode="same")
    return (counts > ball.sum() / 2)[inner]


def tidy_whole(labels, targets, values, rules) -> np.ndarray:
    """The steps target by target, each with masks of the whole volume."""
    labels = labels.copy()
    for name, written in values.items():
        if name not in rules:
            continue
        outer = {other for other in targets if set(targets[other]) > set(targets[name])}
        occurring = {0}.union(*targets.values())
        free = [v for v in occurring if {other for other in targets if v in targets[other]} == outer]
        before = np.isin(labels, targets[name])
        mask, allowed = before, before | np.isin(labels, free)
        for step in rules[name]:
            ((key, value),) = step.model_dump().items()
            if key != "inside":
                mask = apply_whole(mask, key, value) & allowed
                continue
            other = np.isin(labels, targets[value])
            if set(targets[name]) & set(targets[value]):
                mask = mask & other
            else:
                pieces, _ = ndimage.label(mask | other, TOUCHING)
                mask = mask & np.isin(pieces, pieces[other])
        instead = np.zeros(256, np.uint8)
        for other, value in values.items():
            if not set(targets[other]) <= set(targets[name]):
                instead[list(targets[other])] = value
        lost = before & ~mask
        labels[lost] = instead[labels[lost]]
        labels[mask & ~before] = written
    return labels


@st.composite
def rules_of_targets(draw) -> dict[str, tuple[PostprocessStep, ...]]:
    chosen = {name: draw(st.lists(st.sampled_from(STEPS), max_size=3)) for name in "abc"}
    return {
        name: tuple(PostprocessStep.model_validate(step) for step in steps if step.get("inside") != name)
        for name, steps in chosen.items()
        if steps
    }


@given(
    st.integers(0, 10_000),
    st.sampled_from([(23, 14, 9), (9, 21, 12), (12, 15, 1)]),
    rules_of_targets(),
    st.sampled_from(list(TARGETS)),
    st.sampled_from(["C", "F"]),
)
@settings(max_examples=120, deadline=None)
def test_tidied_maps_equal_those_of_whole_volumes(seed, shape, rules, kind, layout) -> None:
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 1.0)
    labels = np.digitize(noise, np.quantile(noise, [0.6, 0.8, 0.93])).astype(np.uint8)
    labels[rng.random(shape) < 0.01] = rng.integers(0, 4)
    targets, values = TARGETS[kind]
    want = tidy_whole(labels, targets, values, rules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tidy, "_SLAB_VOXELS", 200)  # many slabs, and threads
        patch.setattr(boxes, "_SLAB_VOXELS", 200)
        got = tidy_labels(labels.copy(order=layout), targets, values, rules, SPACING_MM)
    assert np.array_equal(got, want)


CHOOSING = [{"keep_largest": True}, {"min_volume_ml": 0.01}, {"min_volume_ml": 0.03}, {"fill_holes": True}]


@given(
    st.integers(0, 10_000),
    st.lists(st.sampled_from(CHOOSING), min_size=3, max_size=3),
    st.sampled_from(["C", "F"]),
)
@settings(max_examples=60, deadline=None)
def test_components_of_all_labels_in_one_pass_are_those_of_one_label_after_the_other(
    seed, steps, layout
) -> None:
    rng = np.random.default_rng(seed)
    labels = np.digitize(ndimage.gaussian_filter(rng.normal(size=(23, 14, 9)), 1.2), [0.0, 0.1, 0.25])
    labels = labels.astype(np.uint8)
    targets, values = TARGETS["exclusive"]
    rules = {name: (PostprocessStep.model_validate(step),) for name, step in zip("abc", steps, strict=True)}
    passes: list[bool] = []

    def keep(*given) -> bool:
        passes.append(keep_together(*given))
        return passes[-1]

    with pytest.MonkeyPatch.context() as patch:
        keep_together = tidy._keep_components
        patch.setattr(tidy, "_VOXELS_PER_RUN", 1)
        patch.setattr(tidy, "_keep_components", keep)
        got = tidy_labels(labels.copy(order=layout), targets, values, rules, SPACING_MM)
    assert np.array_equal(got, tidy_whole(labels, targets, values, rules))
    together = [a != CHOOSING[3] != b for a, b in pairwise(steps)]
    assert any(passes) == any(together)
