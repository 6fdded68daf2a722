"""Exceptions for errors that a user can cause: each says what is wrong, where, and how to fix it.

The command line prints only the message and exits with the class's exit code. Any other exception is a bug in
medunet and exits with 3.
"""


class MedunetError(ValueError):
    """Base class of errors caused by input, data or the environment. `str(error)` is the message for the user."""

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        """Build the message from what is wrong, where (case, file or key), and a hint on how to fix it."""
        self.what, self.where, self.hint = what, where, hint
        sentence = f"{where}: {what}" if where else what
        super().__init__(f"{sentence.rstrip('.')}. {hint}".strip() if hint else sentence)


class InputError(MedunetError):
    """A path, option, configuration key or combination of them cannot be used."""


class NoMemoryError(InputError):
    """There is not enough free memory for a computation, or it ran out of memory."""


class DataError(MedunetError):
    """A file of the dataset cannot be read, or its content is not what it should be."""

    exit_code = 1


class FaultsError(MedunetError):
    """The dataset has errors that were neither fixed nor excluded."""

    exit_code = 1


class StoppedError(MedunetError):
    """The user stopped a command that can be resumed."""

    exit_code = 130


class PreemptedError(MedunetError):
    """The system asked a command to end; its work is stored, and the same command goes on."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again later


_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "ALLOC_FAILED",
)  # parts of torch's messages


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means out of memory: from Python, NumPy, or torch on a GPU or CPU."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
