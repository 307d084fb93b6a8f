"""Installs the published package pycocotools; nothing of it is kept here.

    python3 setup.py install --user
    pip install .

Both end in the same pip requirement. The first form runs without setuptools, which Python 3.12 no longer brings.
"""

import subprocess
import sys

REQUIREMENT = "pycocotools>=2.0.6"  # older ones fail with numpy 1.24 and later


def install(arguments):
    """What `setup.py install` stands for today: let pip install the requirement."""
    in_virtual_environment = sys.prefix != sys.base_prefix
    user = [] if in_virtual_environment or "--user" not in arguments else ["--user"]  # pip refuses it in there
    return subprocess.call([sys.executable, "-m", "pip", "install", *user, REQUIREMENT])


if sys.argv[1:2] == ["install"]:
    sys.exit(install(sys.argv[2:]))

from setuptools import setup  # noqa: E402

setup(
    name="simplepose-cocoapi",
    version="1.0",
    description="Depends on pycocotools, for instructions that say: cd cocoapi/PythonAPI",
    packages=[],
    py_modules=[],
    install_requires=[REQUIREMENT],
)
