"""nnU-Net's planning rules, against plans that nnU-Net 2 itself publishes and against each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medunet.planning.topology import (
    initial_patch,
    plan_topology,
    target_spacing,
    uniform_topology,
)


def test_hippocampus_as_nnunet_plans_it():
    topology = plan_topology((35, 50, 35), (1.0, 1.0, 1.0))
    assert topology.patch_size == (40, 56, 40)
    assert topology.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert topology.kernel_sizes == ((3, 3, 3),) * 4


def test_liver_as_nnunet_plans_it():
    topology = plan_topology((128, 128, 128), (0.7676, 0.7676, 1.0))
    assert topology.patch_size == (128, 128, 128)
    assert topology.strides == ((1, 1, 1), *((2, 2, 2),) * 5)


def test_coarse_axis_is_pooled_and_convolved_late():
    """ACDC, 3D: 1.56×1.56×10 mm, patch 256×224×14 in nnU-Net's axis order turned round."""
    topology = plan_topology((256, 224, 14), (1.5625, 1.5625, 10.0))
    assert topology.kernel_sizes[:3] == ((3, 3, 1), (3, 3, 1), (3, 3, 3))
    assert topology.strides[1:3] == ((2, 2, 1), (2, 2, 1))
    assert topology.strides[3][2] == 2
    assert all(
        size % divisor == 0 for size, divisor in zip(topology.patch_size, topology.divisors, strict=True)
    )


def test_target_spacing_of_a_coarse_axis_is_its_tenth_percentile():
    spacings = np.array([[0.8, 0.8, mm] for mm in (2.0, 3.0, 5.0, 5.0, 6.0)])
    shapes = np.array([[512, 512, 40]] * 5)
    target, used = target_spacing(spacings, shapes)
    assert used
    assert target == pytest.approx([0.8, 0.8, np.percentile(spacings[:, 2], 10)])
    assert target_spacing(spacings, np.array([[512, 512, 400]] * 5)) == (
        pytest.approx([0.8, 0.8, 5.0]),
        False,
    )


def test_coarse_axis_is_never_finer_than_the_others():
    spacings = np.array([[0.8, 0.8, mm] for mm in (0.1, 5.0, 5.0)])
    target, _ = target_spacing(spacings, np.array([[512, 512, 40]] * 3))
    assert target[2] >= 0.8


def test_initial_patch_has_the_aspect_of_the_spacing_within_the_median():
    assert initial_patch((1.0, 1.0, 1.0), (500, 500, 500)) == (256, 256, 256)
    assert initial_patch((1.0, 1.0, 4.0), (1000, 1000, 1000)) == (406, 406, 102)
    assert initial_patch((1.0, 1.0), (300, 200)) == (300, 200)


@given(
    st.tuples(*[st.integers(8, 200)] * 3),
    st.tuples(*[st.floats(0.3, 6.0)] * 3),
)
def test_any_patch_can_be_pooled(patch, spacing):
    topology = plan_topology(patch, spacing)
    padded = np.array(topology.patch_size)
    assert (padded >= patch).all()
    assert (padded % topology.divisors == 0).all()
    assert (padded // topology.divisors >= 4).all()
    assert len(topology.kernel_sizes) == len(topology.strides)


def test_a_given_number_of_stages_ends_the_pooling():
    whole = plan_topology((64, 64, 16), (1.0, 1.0, 4.0))
    cut = plan_topology((64, 64, 16), (1.0, 1.0, 4.0), num_stages=3)
    assert cut.strides == whole.strides[:3]
    assert cut.divisors == (4, 4, 1)
    assert len(plan_topology((16, 16), (1.0, 1.0), num_stages=9).strides) == 3  # no deeper than 4 voxels


def test_uniform_stages_halve_every_axis():
    topology = uniform_topology((100, 60, 8), 4)
    assert topology.patch_size == (104, 64, 8)
    assert topology.strides == ((1, 1, 1), *((2, 2, 2),) * 3)
    assert set(topology.kernel_sizes) == {(3, 3, 3)}


@given(st.integers(1, 700), st.integers(2, 5), st.integers(1, 3))
def test_an_unpadded_patch_halves_evenly_and_leaves_an_output(size, stages, convolutions):
    loss = 2 * convolutions
    fitting = uniform_topology((size,), stages, unpadded_convolutions=convolutions).patch_size[0]
    assert fitting >= size
    side = fitting
    for _ in range(stages - 1):
        side -= loss
        assert side > 0
        assert side % 2 == 0
        side //= 2
    side -= loss
    for _ in range(stages - 1):
        side = 2 * side - loss
    assert side > 0
    previous = fitting - 2 ** (stages - 1)  # no smaller size would have done
    assert previous < size or uniform_topology((previous,), stages, unpadded_convolutions=convolutions)
