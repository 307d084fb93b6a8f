"""Put lib/ first on sys.path, so that the commands run from a plain checkout. The only file that touches it."""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))


def run(file: str) -> None:
    """Run the command of the package that is named like this file, and exit."""
    from simplepose.core.errors import run_command

    sys.exit(run_command(importlib.import_module(f"simplepose.commands.{Path(file).stem}").main))
