"""The command `infer_many` of a checkout; what it does is in lib/simplepose/commands/infer_many.py."""

import sys

import _init_paths  # noqa: F401
from simplepose.commands.infer_many import main
from simplepose.core.errors import run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
