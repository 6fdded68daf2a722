"""deploy/ installs what pyproject.toml declares: Python, extras, entry point, and every file of the package."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from conftest import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PYTHON_OF = {"bookworm": (3, 11), "trixie": (3, 13)}  # Debian's own


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile with their arguments, lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def values_of(name: str) -> list[str]:
    return [value for instruction, value in instructions() if instruction == name]


def sections() -> dict[str, str]:
    """Return the sections of the Apptainer definition by name, with its header as ""."""
    parts = re.split(r"^%(\w+)\n", (DEPLOY / "medunet.def").read_text(), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def defaults() -> dict[str, dict[str, str]]:
    """Return the build arguments with their defaults, of both files."""
    docker = dict(value.split("=", 1) for value in values_of("ARG"))
    apptainer = dict(line.strip().split("=", 1) for line in sections()["arguments"].split())
    docker["BASE"] = docker["BASE"].removeprefix("docker.io/library/")
    return {"Dockerfile": docker, "medunet.def": apptainer}


BOTH = pytest.mark.parametrize("file", ["Dockerfile", "medunet.def"])


def test_both_have_the_same_arguments() -> None:
    docker, apptainer = defaults().values()
    assert docker == apptainer
    assert docker["TORCH_CPU_INDEX"] in (DEPLOY / "install.sh").read_text()


@BOTH
def test_base_has_a_python_that_the_package_takes(file: str) -> None:
    (suite,) = (name for name in PYTHON_OF if name in defaults()[file]["BASE"])
    least, most = re.findall(r"3\.(\d+)", PROJECT["project"]["requires-python"])
    assert int(least) <= PYTHON_OF[suite][1] < int(most)


@BOTH
def test_extras_exist(file: str) -> None:
    extras = defaults()[file]["EXTRAS"].split(",")
    assert extras
    assert set(extras) <= set(PROJECT["project"]["optional-dependencies"])


def test_both_start_the_command_of_the_package() -> None:
    (name,) = PROJECT["project"]["scripts"]
    assert values_of("ENTRYPOINT") == [f'["{name}"]']
    assert sections()["runscript"].strip() == f'exec {name} "$@"'
    assert f"/opt/medunet/bin/{name}" in sections()["test"]


def test_apptainer_passes_the_index_of_torch_which_the_script_takes_from_its_environment() -> None:
    assert 'export TORCH_CPU_INDEX="{{ TORCH_CPU_INDEX }}"' in sections()["post"]
    assert "${TORCH_CPU_INDEX:-" in (DEPLOY / "install.sh").read_text()


def test_both_run_the_same_script() -> None:
    assert 'sh /source/deploy/install.sh /source "$DEVICE" "$EXTRAS"' in " ".join(values_of("RUN"))
    assert 'sh /source/deploy/install.sh /source "{{ DEVICE }}" "{{ EXTRAS }}"' in sections()["post"]


def test_every_file_that_the_package_is_built_from_is_copied() -> None:
    project, wheel = PROJECT["project"], PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    files = ["pyproject.toml", "constraints.txt", "hatch_build.py", "deploy/install.sh", project["readme"]]
    needed = {
        Path(file).parts[0]
        for file in (*files, *project["license-files"], *wheel["packages"], *wheel["force-include"])
    }
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert "*" in ignored  # scans and runs that lie in a checkout do not get into an image
    assert {line[1:] for line in ignored if line.startswith("!")} == needed
    assert {line.split()[0] for line in sections()["files"].splitlines() if line.strip()} == needed
    assert all((REPOSITORY / name).exists() for name in needed)


def test_an_image_runs_as_a_user_and_keeps_no_hidden_volume() -> None:
    names = [name for name, _ in instructions()]
    uid, _, gid = values_of("USER")[-1].partition(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert names.index("USER") > max(place for place, name in enumerate(names) if name in ("RUN", "COPY"))
    assert "VOLUME" not in names
    assert "ADD" not in names


def test_caches_are_in_the_one_folder_that_is_writable() -> None:
    (text,) = values_of("ENV")
    settings = dict(setting.split("=", 1) for setting in text.split())
    for name in ("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
        assert Path("/tmp") in (Path(settings[name]), *Path(settings[name]).parents)
    assert settings["USER"]  # MONAI asks for the name of the user, which a number alone has not
    assert settings["MEDUNET_DATA_ROOT"] == "/data"


def test_the_cpu_build_of_torch_is_the_pinned_one() -> None:
    pins = re.findall(r"^torch==.+$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    assert len(pins) == 1
    assert "grep '^torch=='" in (DEPLOY / "install.sh").read_text()


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
def test_the_script_refuses_an_unknown_device_before_it_installs_anything() -> None:
    command = ["sh", str(DEPLOY / "install.sh"), str(REPOSITORY), "tpu", "tune"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    assert result.returncode == 2
    assert result.stderr == "DEVICE is cpu or cuda, not tpu\n"
