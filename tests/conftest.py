"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the shared real scans; skips where it is absent, fails where CI=true asks for it."""
    folder = Path(os.environ.get("MEDUNET_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "hippocampus").is_dir():
        message = "the shared scans are absent; set MEDUNET_SHARED_DATA to their folder"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder
