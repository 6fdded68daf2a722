"""`medunet models`: list the packaged models that can be named, show one's card, write its example, or add one."""

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from medunet.base.errors import InputError
from medunet.base.files import atomic_write
from medunet.base.words import list_some, two_digits
from medunet.commands.terminal import console, print_stage
from medunet.records.package import CARD_FILE
from medunet.runs.model_library import NamedModel, add_model, list_models
from medunet.runs.packages import find_package, model_folders, open_package

_MOST_NAMES = 8


def run_models(
    name: Path | None = None,
    *,
    add: Path | None = None,
    example: Path | None = None,
    overwrite: bool = False,
) -> int:
    """List models, show the card or write the example of one, or add one; return how many cannot be read.

    Args:
        name: a model by its name, or a package's ZIP.
        add: a ZIP to copy into the user's folder.
        example: the file to write the example of the model to.
        overwrite: replace a model of the same name, or a file.

    Raises:
        InputError: there is no such model, another one has the name of the one to be added, or the example's file
            exists or has another ending.
        DataError: the package is refused.
    """
    if add is not None:
        added = add_model(add, overwrite=overwrite)
        print_stage("Models", f"{added.name} can be named", added.path)
        return 0
    if name is not None and example is not None:
        write_example(name, example, overwrite=overwrite)
        return 0
    if name is not None:
        show_card(name)
        return 0
    models = list_models()
    if not models:
        places = " or ".join(map(str, model_folders()))
        text = f"There are none in {places}. Add one with `medunet models --add FILE.zip`."
        console.print(escape(text), highlight=False, soft_wrap=True)
        return 0
    console.print(_table(models))
    for model in models:
        if model.trouble:
            text = f"{model.name} ({model.path}): {model.trouble}"
            console.print(f"  [yellow]{escape(text)}[/]", highlight=False, soft_wrap=True)
    return sum(model.package is None for model in models)


def show_card(name: Path) -> None:
    """Print the model card of a package, after verifying it."""
    folder, _ = open_package(_find(name))
    text = (folder / CARD_FILE).read_text(encoding="utf-8", errors="replace")
    console.print(_printable(text), markup=False, highlight=False, soft_wrap=True)


def write_example(name: Path, path: Path, *, overwrite: bool = False) -> None:
    """Copy the example of a package to a file, after verifying the package."""
    folder, package = open_package(_find(name))
    ending = "." + package.example.partition(".")[2]
    if not path.name.endswith(ending) or path.name == ending:
        raise InputError(
            f"the example is a {ending} file", where=f"--example {path}", hint=f"Name it so: x{ending}."
        )
    if path.exists() and not overwrite:
        raise InputError("exists", where=f"--example {path}", hint="Choose another file, or add --overwrite.")
    with atomic_write(path, suffix=ending) as temporary:
        temporary.write_bytes((folder / package.example).read_bytes())
    print_stage("Models", f"an example for {package.name}", path)


def _find(name: Path) -> Path:
    path = find_package(name)
    if path is None:
        known = list_some([model.name for model in list_models()], _MOST_NAMES)
        hint = f"Choose from {known}." if known else "Add one with `medunet models --add FILE.zip`."
        raise InputError(f"there is no model '{name}'", hint=hint)
    return path


def _table(models: list[NamedModel]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("name", "segments", "in", "members", "MB", "licence", "where"):
        table.add_column(column, justify="right" if column in ("members", "MB") else "left", overflow="fold")
    for model in models:
        package = model.package
        cells = ["cannot be read", "", "", "", ""]
        size = two_digits(model.num_bytes / 1e6)
        if package is not None:
            channels = ", ".join(
                name if modality in (name, "other") else f"{name} ({modality})"
                for name, modality in package.channels.items()
            )
            targets = list_some(package.targets, _MOST_NAMES)
            cells = [targets, channels, str(len(package.members)), size, package.weights_licence]
        row = (model.name, *cells, str(model.path.parent))
        table.add_row(*(escape(_printable(cell)) for cell in row))
    return table


def _printable(text: str) -> str:
    """Return text without control characters, with which a package from elsewhere could steer the terminal."""
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n")
