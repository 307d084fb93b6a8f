"""simplepose COMMAND ...: the commands of pose_estimation/, for use when the package is installed."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys

from simplepose import commands
from simplepose.core.errors import UserError, run_command

NOT_COMMANDS = ("cli",)


def names() -> list[str]:
    """The names of all commands."""
    return [module.name for module in pkgutil.iter_modules(commands.__path__) if module.name not in NOT_COMMANDS]


def usage() -> str:
    lines = ["usage: simplepose COMMAND ...", "", "commands (simplepose COMMAND --help tells more):"]
    for name in names():
        description = (importlib.import_module(f"simplepose.commands.{name}").__doc__ or "").splitlines()[0]
        lines.append(f"  {name:<12} {description}")
    return "\n".join(lines)


def dispatch() -> int | None:
    """Run the command named by the first argument, with the remaining arguments."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"did you mean {near[0]}?" if near else "simplepose --help lists them"
        raise UserError(f"there is no command {name!r}; {hint}")
    sys.argv = [f"simplepose {name}", *sys.argv[2:]]
    return importlib.import_module(f"simplepose.commands.{name}").main()


def main() -> int:
    return run_command(dispatch)


if __name__ == "__main__":
    sys.exit(main())
