"""Put lib/ first on sys.path, so that the commands run from a plain checkout. The only file that touches it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))
