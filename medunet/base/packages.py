"""Packages: their versions, how to install optional ones that are missing, and imports without them."""

import gc
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import medunet
from medunet.base.errors import InputError
from medunet.base.files import hash_file, hash_value

_SHAPING = (  # which results depend on, beside Python and medunet itself
    *("torch", "monai", "numpy", "scipy", "pandas", "nibabel", "SimpleITK", "isal", "Pillow", "matplotlib"),
    *("pydicom", "highdicom", "openvino", "scikit-image", "onnxruntime"),
)
_CODE = (".py", ".html", ".css", ".js")


@cache
def describe_software() -> dict[str, str]:
    """Return the versions of Python, medunet and the packages that results depend on, and a hash of medunet's code.

    A package that is not installed is left out. A build for a card, such as torch 2.9.0+cu126, counts as the version.
    """
    return {
        "Python": ".".join(map(str, sys.version_info[:2])),
        "medunet": medunet.__version__,
        "medunet's code": hash_code(Path(medunet.__file__).parent)[:8],
        **{name: number.partition("+")[0] for name, number in versions_of(_SHAPING).items()},
    }


@cache
def hash_code(*folders: Path) -> str:
    """Return the SHA-256 of the code and page templates in folders: it changes where the version may not."""
    return hash_value(
        [
            [file.relative_to(folder).as_posix(), hash_file(file)]
            for folder in folders
            for file in sorted(folder.rglob("*"))
            if file.suffix in _CODE
        ]
    )


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of the packages that are installed, by name."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def missing_packages(packages: Sequence[str]) -> list[str]:
    """Return the packages that are not installed."""
    return sorted(set(packages) - set(versions_of(packages)))


def require_packages(packages: Sequence[str], extra: str, *, where: str) -> None:
    """Check that packages are installed.

    Raises:
        InputError: some are not; the hint names the extra of medunet that installs them.
    """
    if missing := missing_packages(packages):
        verb = "is" if len(missing) == 1 else "are"
        raise InputError(
            f"{', '.join(missing)} {verb} not installed",
            where=where,
            hint=f"Run `pip install 'medunet[{extra}]'`.",
        )


_UNUSED = {  # by the package that imports them if they are installed
    "monai": (
        "ignite",
        "matplotlib",
        "optuna",
        "pandas",
        "pydicom",
        "scipy.signal",
        "skimage",
        "sklearn",
        "tensorboard",
    ),
    "nibabel": ("pydicom",),  # for DICOM in a NIfTI header, which is kept as it is
}


def keep_imports_lean() -> None:
    """Have MONAI and NiBabel find none of the optional packages that medunet does not use through them.

    `import monai` imports all that are installed, which takes longer than MONAI itself. They can be imported before
    and after as ever; MONAI's own functions that need them say that they are not installed. So this is for programs
    of medunet alone, not for a notebook that imports medunet.
    """
    if not any(isinstance(finder, _LeanImports) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LeanImports())


class _LeanImports(MetaPathFinder):
    """Finds MONAI and NiBabel and, in the thread that imports one, none of the packages that it is not used for."""

    def __init__(self) -> None:
        self.loading: list[tuple[str, int]] = []  # package and thread

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for name, thread in self.loading:
            if fullname in _UNUSED[name] and thread == threading.get_ident():
                raise ModuleNotFoundError(f"{name} is imported without {fullname}", name=fullname)
        spec = PathFinder.find_spec(fullname, path, target) if fullname in _UNUSED else None
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = partial(self._load, spec.loader.exec_module)  # type: ignore[method-assign]
        return spec

    def _load(self, load: Callable[[ModuleType], None], module: ModuleType) -> None:
        loading, collects = (module.__name__, threading.get_ident()), gc.isenabled()
        gc.disable()  # modules are no garbage, and looking for it takes long
        self.loading.append(loading)
        try:
            load(module)
        finally:
            self.loading.remove(loading)
            gc.freeze()
            if collects:
                gc.enable()
