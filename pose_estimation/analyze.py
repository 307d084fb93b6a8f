"""The command `analyze` of a checkout; what it does is in lib/simplepose/commands/analyze.py."""

import sys

import _init_paths  # noqa: F401
from simplepose.commands.analyze import main
from simplepose.core.errors import run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
