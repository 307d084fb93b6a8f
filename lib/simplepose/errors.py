"""Errors are part of the interface: a mistake of the user ends in one clear line and exit code 2."""

from __future__ import annotations

import sys
from typing import Callable


class UserError(Exception):
    """Something the user can mend. The message is one line: what was found, where, and what to do."""


def run_command(main: Callable[[], int | None]) -> int:
    """Run a command's `main` and turn its outcome into an exit code.

    Returns what `main` returned (None counts as 0), 2 after a `UserError`, 130 after Ctrl-C.
    Any other exception is a defect of ours and keeps its traceback.
    """
    try:
        return main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as in `... | head`
        sys.stderr.close()
        return 1
