"""The command `data_tools` of a checkout; what it does is in lib/simplepose/commands/data_tools.py."""

import sys

import _init_paths  # noqa: F401
from simplepose.commands.data_tools import main
from simplepose.core.errors import run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
