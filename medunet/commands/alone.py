"""Run a command alone on its folder, so that two processes do not overwrite each other's files."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from medunet.base.lock import hold
from medunet.runs.run import Run

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def alone(
    stage: str, lock: str = ""
) -> Callable[[Callable[_Arguments, _Result]], Callable[_Arguments, _Result]]:
    """Decorate the function of a stage: while it runs, another process is refused on the same folder.

    The folder is that of the argument `run` or, without one, the argument `out`. Stages that write the same file
    share a `lock`; by default each has its own.
    """

    def decorate(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            given = signature.bind(*args, **kwargs).arguments
            run: Run | None = given.get("run")
            folder: Path = given["out"] if run is None else run.folder.root
            with hold(folder, lock or stage, command=f"medunet {stage}"):
                return function(*args, **kwargs)

        return call

    return decorate
