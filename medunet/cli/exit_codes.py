"""Error messages and exit codes of every command.

0: success; 1: faults found or some cases failed; 2: an error that the user can fix; 3: an internal error; 75:
asked to end by the system (SIGTERM, SIGUSR1), to be started again; 130: stopped by the user.
"""

import atexit
import errno
import gc
import sys
import traceback
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape

from medunet.base.errors import MedunetError, is_out_of_memory
from medunet.base.packages import keep_imports_lean


def run_and_exit(call: Callable[[], object]) -> None:
    """Call a function and exit with its exit code; print errors as one message, with the traceback on `--debug`.

    Used by the command line and the pipeline scripts. If the function returns a list of failed cases that is not
    empty, the exit code is 1.
    """
    debug = "--debug" in sys.argv
    errors = Console(stderr=True)
    keep_imports_lean()
    atexit.register(
        gc.freeze
    )  # the end of the process does not search all objects for garbage, which takes a second
    try:
        if call():
            sys.exit(1)
    except MedunetError as error:
        if debug:
            traceback.print_exc()
        errors.print(f"[bold red]Error[/]: {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        errors.print("Stopped. Run the same command to resume.")
        sys.exit(130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            errors.print(
                "[bold red]Error[/]: the disk is full. Free some space and run the same command to resume.",
                soft_wrap=True,
            )
            sys.exit(2)
        if is_out_of_memory(error):
            hint = (
                "Free memory, or use fewer --workers or a smaller planning.patch_size or planning.batch_size."
            )
            errors.print(f"[bold red]Error[/]: out of memory. {hint}", highlight=False, soft_wrap=True)
            sys.exit(2)
        text = f"({type(error).__name__}): {escape(str(error))}"
        errors.print(f"[bold red]Internal error[/] {text}\nAdd --debug for the traceback.", soft_wrap=True)
        sys.exit(3)
