"""The space of a search: refused before the first trial where it is miswritten or holds impossible values."""

import pytest
from tiny_search import RATES, configure

from medunet.base.errors import InputError
from medunet.training.tuning_space import check_space


@pytest.mark.parametrize(
    ("space", "changes", "message"),
    [
        ("", [], "nothing to search"),
        ("training.learning_rat: [1]", [], r"training\.learning_rat: Extra inputs"),
        ("planning.network.dropuot: [0.1]", [], r"planning\.network\.dropuot: Extra inputs"),
        ("training.epochs.x: [1]", [], "'epochs' is a value"),
        ("seed: [1, 2]", [], "'seed' is not a key of planning or training"),
        ("inference.overlap: [0.5]", [], "'inference.overlap' is not a key"),
        ("training: [1]", [], "'training' is not a key"),
        ("training.fold: [0, 1]", [], "must be the same for all trials"),
        ("training.init_from: [/a]", [], "must be the same for all trials"),
        (RATES, ["tuning.sampler=grid"], "is a range, but a grid needs a list"),
        (RATES, ["training.fold=each"], "training.fold each: trials are compared on one fold"),
        ("training.loss: []", [], "'training.loss' has no values"),
        ("training.loss: [dice, dice]", [], "a value twice"),
        ("training.loss: [dice, nonsense]", [], r'training\.loss="nonsense" \(.*Input should be'),
        ("planning.patch_size: [[24, 24]]", [], r"patch_size=\[24, 24\] \(.*has 2 axes"),
        ("planning.network.dropout: [0.1, 1.5]", [], r"dropout=1\.5 \(.*less than 1"),
        ("training.learning_rate: {low: 1, high: 100}", [], r"learning_rate=100\.0 \(.*equal to 10"),
        ("planning.batch_size: {low: 2, high: 8}", [], r"batch_size=4\.\d+ \(.*valid integer.*integer: true"),
        ("planning.batch_size: {low: 0, high: 8, integer: true}", [], r"batch_size=0 \("),
        ("training.loss: {low: 1, high: 2}", [], r"training\.loss=1\.0 \("),
        ("a: [1], training.loss: [b]", [], r"'a' is not a key.*; training\.loss=\"b\""),
    ],
)  # fmt: skip
def test_a_space_that_cannot_be_searched_is_refused_up_front(space: str, changes: list[str], message: str):
    with pytest.raises(InputError, match=rf"tuning\.space: .*{message}"):
        check_space(configure(space, *changes))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("training.loss: dice", r"training\.loss\.range: Input should be a valid dictionary"),
        ("training.learning_rate: {low: 1}", r"learning_rate\.range\.high: Field required"),
        ("training.learning_rate: {low: 0, high: 1, log: true}", r"low > 0 where log is set"),
        ("training.learning_rate: {low: 1, high: 1}", r"low < high"),
        ("planning.batch_size: {low: 1.5, high: 4, integer: true}", "whole numbers where integer is set"),
    ],
)
def test_a_space_that_is_miswritten_is_refused(space: str, message: str):
    with pytest.raises(InputError, match=message):
        configure(space)
