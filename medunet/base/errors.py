"""Errors that a user can cause: each says what is wrong, where, and how to fix it.

The command line prints the message alone and ends with the class's exit code; everything that is not a
`MedunetError` is our own fault and ends with 3.
"""


class MedunetError(ValueError):
    """A mistake or fault outside the program. `str(error)` is one readable message."""

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        """Say `what` is wrong, `where` (case, file, key) and how to `hint` it."""
        self.what, self.where, self.hint = what, where, hint
        sentence = f"{where}: {what}" if where else what
        super().__init__(f"{sentence.rstrip('.')}. {hint}".strip() if hint else sentence)


class InputError(MedunetError):
    """A path, option, configuration key or combination that cannot be used."""


class NoMemoryError(InputError):
    """Work that does not fit the memory that is free now, or has run out of it."""


class DataError(MedunetError):
    """A file of the dataset that cannot be read or does not hold what it should."""

    exit_code = 1


class FaultsError(MedunetError):
    """The dataset has errors that the user has neither excluded nor fixed."""

    exit_code = 1


class StoppedError(MedunetError):
    """The user stopped a command that can be resumed."""

    exit_code = 130


_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "ALLOC_FAILED",
)  # as torch words it


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out: Python's, NumPy's, or torch's on a card or a CPU."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
