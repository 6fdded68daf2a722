"""Steps of several targets together: they must not gain less than the best of them alone."""

import numpy as np
import pytest
from tiny_selection import DESCRIPTION

from medunet.runs import step_choice
from medunet.runs.step_choice import choose_steps
from medunet.runs.step_trials import CaseDice

CASES = range(20)
PATIENTS = [f"p{number:02d}" for number in CASES]


@pytest.mark.parametrize("together", [0.02, 0.05, -0.1])
def test_steps_that_spoil_one_another_are_not_chosen_together(monkeypatch, tmp_path, together):
    """Keeping the largest component gains 0.03 in the liver, 0.02 in the spleen, and both together what is given."""
    gains = {(): 0.0, ("liver",): 0.03, ("spleen",): 0.02, ("liver", "spleen"): together}
    noise = np.random.default_rng(0).normal(0, 0.003, len(CASES))

    def try_steps(cases, description, variants, **options):
        keys = [
            tuple(name for name in DESCRIPTION.targets if any(s.keep_largest for s in steps.get(name, ())))
            for steps in variants
        ]
        return [
            CaseDice([[0.8 + gains[key] + bool(key) * noise[case]] * 2 for key in keys], [10.0, 5.0], 1.5)
            for case in cases
        ]

    monkeypatch.setattr(step_choice, "try_steps", try_steps)
    before = try_steps(CASES, DESCRIPTION, [{}])
    steps, rounds = choose_steps(
        CASES, PATIENTS, DESCRIPTION, before, first_round=2, journal=tmp_path / "journal"
    )
    assert set(steps) == ({"liver", "spleen"} if together > 0.03 else {"liver"})
    assert all(len(each) == 1 for each in steps.values())
    assert rounds[0].level == 0.0125
