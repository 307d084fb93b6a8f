"""Errors are part of the interface: a mistake of the user ends in one clear line and exit code 2."""

from __future__ import annotations

import re
import reprlib
import sys
from typing import Any, Callable

# What moves a terminal's cursor, hides text or turns it around; and half characters, which no terminal can print.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MAX_MESSAGE = 2000  # characters; what is wrong stands at the start, what to do at the end


class UserError(Exception):
    """Something the user can mend. The message is one line: what was found, where, and what to do."""

    def __init__(self, message: object):
        text = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], str(message))
        if len(text) > MAX_MESSAGE:
            text = f"{text[: MAX_MESSAGE - 500]} ... {text[-500:]}"
        super().__init__(text)


class _Clipped(reprlib.Repr):
    def __init__(self):
        super().__init__()
        self.maxstring = self.maxother = 100
        self.maxlevel = 3

    def repr_int(self, x: int, level: int) -> str:
        digits = x.bit_length() * 3 // 10  # Python itself refuses to spell out thousands
        return repr(x) if digits < 40 else f"a whole number of about {digits} digits"


def shown(value: Any) -> str:
    """A value from a file as a message may quote it: `repr`, clipped."""
    return _Clipped().repr(value)


def has_control(text: str) -> bool:
    """Whether a terminal would act on some of it instead of printing it."""
    return _CONTROL.search(text) is not None


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
