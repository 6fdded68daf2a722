"""Packages from elsewhere: whatever is wrong or malicious in one is refused before anything of it is used."""

import hashlib
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_networks import describe, plan_network

from medunet.base.errors import DataError, InputError
from medunet.records.model_card import ModelCard
from medunet.runs.packages import find_models, find_package, open_package, read_package

Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "medunet" / "models"


def card(**changes: Any) -> bytes:
    made = ModelCard(medunet_version="0", description=describe(), plan=plan_network("plain"), fold=0)
    return made.model_copy(update=changes).to_text().encode()


def good_files(num_members: int = 1, **changes: Any) -> Files:
    members = [f"members/{number}" for number in range(num_members)]
    files = {"MODEL_CARD.md": b"# x\n", "example.nii.gz": b"x"}
    for number, member in enumerate(members):
        files[f"{member}/model.json"] = card()
        files[f"{member}/weights.safetensors"] = b"x" * (1000 + number)
    return {**files, "package.json": describe_files(files, members, **changes)}


def describe_files(files: Files, members: list[str], **changes: Any) -> bytes:
    plain = {
        "schema": "medunet.package/1",
        "name": "x",
        "title": "",
        "medunet_version": "0",
        "weights_licence": "CC0",
        "data_licence": "CC0",
        "channels": {"MR0": "MR"},
        "targets": ["liver", "tumour"],
        "members": [
            {"folder": member, "fold": 0, "weights": "best", "precision": "fp32", "medunet_version": "0"}
            for member in members
        ],
        "example": "example.nii.gz",
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    return json.dumps({**plain, **changes}).encode()


def write(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def test_a_good_package_is_unpacked_once(tmp_path: Path, own_cache_folder: Path):
    path = write(tmp_path / "x.zip", good_files(2))
    models = find_models(path)
    assert [(model / "weights.safetensors").stat().st_size for model in models] == [1000, 1001]
    before = {file: file.stat().st_mtime_ns for file in own_cache_folder.rglob("*") if file.is_file()}
    assert find_models(path) == models
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert [folder.name for folder in own_cache_folder.iterdir() if folder.is_dir()] == [
        hashlib.sha256(path.read_bytes()).hexdigest()
    ]


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json"])
def test_unpacked_files_that_were_changed_are_unpacked_again(tmp_path: Path, caplog, name: str):
    path = write(tmp_path / "x.zip", good_files())
    (model,) = find_models(path)
    content = (model / name).read_bytes()
    (model / name).write_bytes(content.replace(b"x", b"y").replace(b"0", b"1"))
    assert find_models(path) == [model]
    assert (model / name).read_bytes() == content
    assert "were changed and are unpacked again" in caplog.text


def changed(name: str, content: bytes) -> Callable[[Files], None]:
    return lambda files: files.update({name: content})


def other_weights(files: Files) -> None:
    files["members/0/weights.safetensors"] = b"y" * 1000


def without(name: str) -> Callable[[Files], None]:
    return lambda files: files.pop(name) and None


WRONG: dict[str, tuple[Callable[[Files], None], str]] = {
    "other weights": (other_weights, r"members/0/weights.safetensors has another SHA-256"),
    "a file too many": (changed("run.py", b"print()"), r"run.py is not listed"),
    "a file too few": (without("MODEL_CARD.md"), r"MODEL_CARD.md is missing"),
    "no card of a member": (without("members/0/model.json"), r"model.json: no such file"),
    "no package.json": (without("package.json"), r"no such file"),
    "not JSON": (changed("package.json", b"{"), r"package.json: not valid JSON"),
    "a card of another kind": (changed("members/0/model.json", b"{}"), r"model.json: .*medunet_version"),
    "no licence": (
        changed("package.json", good_files(weights_licence=" ")["package.json"]),
        r"weights_licence",
    ),
    "a name that is a path": (changed("package.json", good_files(name="../x")["package.json"]), r"name: "),
    "a later schema": (
        changed("package.json", good_files(schema="medunet.package/2")["package.json"]),
        r"schema",
    ),
    "outside": (changed("../evil.txt", b"x"), r"outside the folder"),
    "absolute": (changed("/tmp/evil.txt", b"x"), r"outside the folder"),
    "too large": (changed("bomb", b"\0" * 150_000_000), r"unpacks to more than 0.1 GB"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_package_is_refused_and_not_kept(tmp_path: Path, own_cache_folder: Path, kind: str):
    change, message = WRONG[kind]
    files = good_files()
    change(files)
    with pytest.raises(DataError, match=message) as caught:
        find_models(write(tmp_path / "x.zip", files))
    assert str(tmp_path) not in str(caught.value)
    assert list(own_cache_folder.iterdir()) == []


def test_a_link_is_refused(tmp_path: Path, own_cache_folder: Path):
    path = write(tmp_path / "x.zip", good_files())
    link = zipfile.ZipInfo("members/0/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="contains a link"):
        find_models(path)
    assert list(own_cache_folder.iterdir()) == []


def test_members_must_belong_together(tmp_path: Path):
    files = good_files(2)
    files["members/1/model.json"] = card(description=describe(2))
    del files["package.json"]
    files["package.json"] = describe_files(files, ["members/0", "members/1"])
    with pytest.raises(DataError, match="members/0 and members/1 have different channels"):
        find_models(write(tmp_path / "x.zip", files))


def test_a_zip_that_is_cut_off_is_refused(tmp_path: Path):
    path = write(tmp_path / "x.zip", good_files())
    path.write_bytes(path.read_bytes()[:-300])
    for read in (read_package, open_package):
        with pytest.raises(DataError, match="is not a complete archive"):
            read(path)


def test_names_are_looked_up_in_the_folders_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folders = [tmp_path / "own", tmp_path / "shipped", tmp_path / "absent"]
    for folder in folders[:2]:
        folder.mkdir()
    one = write(folders[1] / "heart.zip", good_files())
    assert find_package(Path("heart"), folders) == one
    other = write(folders[0] / "heart.zip", good_files(title="mine"))
    assert find_package(Path("heart"), folders) == other
    assert find_package(Path("liver"), folders) is None
    assert find_package(Path("../own/heart"), folders) is None
    assert find_models(Path("heart"), folders)[0].is_dir()
    with pytest.raises(InputError, match="there is no model 'liver'"):
        find_models(Path("liver"), folders)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heart").mkdir()
    assert find_package(Path("heart"), folders) is None, "a folder of this name comes first"
