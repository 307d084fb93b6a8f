"""The command `evaluate` of a checkout; what it does is in lib/simplepose/commands/evaluate.py."""

import sys

import _init_paths  # noqa: F401
from simplepose.commands.evaluate import main
from simplepose.core.errors import run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
