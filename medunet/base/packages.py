"""Optional packages: their versions, and an error that says how to install those that are missing."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from medunet.base.errors import InputError


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
