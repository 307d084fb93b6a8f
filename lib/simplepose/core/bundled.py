"""The trained network that comes with the project: used where none is named. The one place that knows its path.

It is an ONNX file in half precision: it runs without Paddle, `deploy.py` takes it, and `read_weights` reads it back, so
that it can be exported otherwise.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from simplepose.core.errors import UserError

NAME = "posenet.onnx"
CHECKOUT = Path(__file__).resolve().parents[3] / "data" / "weights"
INSTALLED = Path("share", "simplepose")  # below the environment's folder; data-files of pyproject.toml


def bundled_network() -> Path:
    """The bundled network's file.

    Raises:
        UserError: it is not there.
    """
    schemes = ("posix_user", "nt_user", "osx_framework_user")  # of pip install --user
    homes = [sysconfig.get_path("data")]
    homes += [sysconfig.get_path("data", name) for name in sysconfig.get_scheme_names() if name in schemes]
    for folder in (CHECKOUT, *(Path(home, INSTALLED) for home in homes)):
        if (folder / NAME).is_file():
            return folder / NAME
    raise UserError(
        f"no network is named, and data/weights/{NAME} is missing: name one with --model-file FILE, get that file back "
        "with `git checkout data/weights`, or make it from a training (docs/en/export.md)"
    )
