"""Choices in the user's cache folder: found by their key, made anew where broken, never in the way."""

import json
from pathlib import Path

import pytest

from medunet.base.errors import InputError
from medunet.base.processor import Processor
from medunet.compute import choice_cache
from medunet.compute.choice_cache import (
    Choice,
    cache_folder,
    change_settings,
    find_choice,
    list_choices,
    read_settings,
    save_choice,
)

KEY = {"purpose": "training", "asked": ["auto", "auto"], "patch": [16, 16, 8], "torch": "2.13.0"}
CHOICE = Choice("bf16", channels_last=True, seconds=0.25, why="faster", channels_last_why="no slower")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "medunet" / "compute"


def test_a_choice_is_found_again_by_its_key_alone(folder: Path):
    assert find_choice(KEY) is None
    assert save_choice(KEY, CHOICE) is None
    assert find_choice(KEY) == CHOICE
    assert find_choice({**KEY, "torch": "2.14.0"}) is None
    assert [one.choice for one in list_choices()] == [CHOICE]
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "other"}', "\x00"])
def test_what_cannot_be_read_is_made_anew(folder: Path, text: str):
    save_choice(KEY, CHOICE)
    (path,) = folder.iterdir()
    path.write_text(text)
    assert find_choice(KEY) is None
    assert list_choices() == []
    assert save_choice(KEY, CHOICE) is None
    assert find_choice(KEY) == CHOICE


def test_a_file_of_another_key_counts_for_nothing(folder: Path):
    save_choice(KEY, CHOICE)
    (path,) = folder.iterdir()
    plain = json.loads(path.read_text())
    path.write_text(json.dumps({**plain, "key": {**KEY, "torch": "1.0"}}))
    assert find_choice(KEY) is None


def test_without_a_folder_nothing_is_kept_and_nothing_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "cannot be written" in (save_choice(KEY, CHOICE) or "")
    assert find_choice(KEY) is None
    assert list_choices() == []
    assert read_settings() == {}

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder() is None
    assert save_choice(KEY, CHOICE) == "there is no home folder"
    assert find_choice(KEY) is None
    with pytest.raises(InputError, match="Set XDG_CACHE_HOME"):
        change_settings(["training.precision=fp32"])


def test_the_folder_is_where_xdg_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    for given in ("", "relative/folder"):  # which XDG tells programs to ignore
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert cache_folder() == tmp_path / "home" / ".cache" / "medunet" / "compute"


def test_what_the_user_sets_holds_for_this_processor_until_it_is_taken_back(monkeypatch: pytest.MonkeyPatch):
    change_settings(["training.precision=fp32", "inference.channels_last=on"])
    change_settings(["inference.precision=bf16"])
    assert read_settings() == {
        "training.precision": "fp32",
        "inference.channels_last": "on",
        "inference.precision": "bf16",
    }
    with monkeypatch.context() as patch:  # a home folder that several computers share
        patch.setattr(choice_cache, "read_processor", lambda: Processor("another", ("avx2",)))
        assert read_settings() == {}
        change_settings(["training.precision=bf16"])
    change_settings(["training.precision=auto", "inference.precision=auto", "inference.channels_last=auto"])
    assert read_settings() == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("precision=fp32", "no such key 'precision'"),
        ("training.precision", "training.precision cannot be ''"),
        ("training.precision=fp8", "Choose from fp32, bf16, auto"),
        ("inference.channels_last=yes", "Choose from on, off, auto"),
    ],
)
def test_what_cannot_be_set_is_refused(folder: Path, change: str, message: str):
    with pytest.raises(InputError, match=message):
        change_settings([change])
    assert not folder.exists()
