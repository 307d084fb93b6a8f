# %%
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = "https://github.com/OWNER/REPOSITORY.git"  # the one that you have this notebook from

folders = (Path.cwd(), *Path.cwd().parents)
CHECKOUT = next((folder for folder in folders if (folder / "pose_estimation/train.py").exists()), None)
if CHECKOUT is None:  # AI Studio, Colab
    subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, "simplepose"], check=True)
    CHECKOUT = Path("simplepose").resolve()
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-r", CHECKOUT / "requirements.txt"], check=True)
os.chdir(CHECKOUT)
sys.path.insert(0, "lib")


def run(command, *arguments, last=12):
    """One of the commands in pose_estimation/, as in a terminal; shows the last lines of what it prints."""
    line = [sys.executable, f"pose_estimation/{command}", *map(str, arguments)]
    finished = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print("\n".join(finished.stdout.splitlines()[-last:]))
    finished.check_returncode()
