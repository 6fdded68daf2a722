"""How every command ends: one message for a user's mistake, and the exit code.

0 all well; 1 faults found or some cases failed; 2 the user's mistake; 3 an internal error."""

import errno
import sys
import traceback
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape

from medunet.base.errors import MedunetError, is_out_of_memory


def guard(call: Callable[[], object]) -> None:
    """Call a function; a user's mistake becomes one message and its exit code, with a traceback on `--debug`.

    For the command line and the pipeline scripts, whose `sys.argv` it reads. A list of failed cases that the
    function returns ends with exit code 1.
    """
    debug = "--debug" in sys.argv
    errors = Console(stderr=True)
    try:
        if call():
            sys.exit(1)
    except MedunetError as error:
        if debug:
            traceback.print_exc()
        errors.print(f"[bold red]Error[/]: {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        errors.print("Stopped. The same command goes on from here.")
        sys.exit(130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            errors.print("[bold red]Error[/]: the disk is full. Free some space; the same command goes on.")
            sys.exit(2)
        if is_out_of_memory(error):
            hint = "Free some, or use fewer --workers or smaller planning.patch_size and planning.batch_size."
            errors.print(f"[bold red]Error[/]: memory ran out. {hint}", highlight=False, soft_wrap=True)
            sys.exit(2)
        text = f"({type(error).__name__}): {escape(str(error))}"
        errors.print(f"[bold red]Internal error[/] {text}\nAdd --debug for the traceback.", soft_wrap=True)
        sys.exit(3)
