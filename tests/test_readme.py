"""Both READMEs say the same, and what they say works."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"""\]\(([^)\s]+)|<(?:img|a)\b[^>]*\b(?:src|href)="([^"]+)""")
READMES = [ROOT / "README.md", ROOT / "README_EN.md"]
COMMAND = re.compile(r"^python (pose_estimation/\w+\.py|images/\w+\.py) (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The files that a clone has."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files belong to it")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return list(filter(None, listed.stdout.split("\0")))


def blocks(path: Path) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_readmes_are_in_step():
    chinese, english = (path.read_text(encoding="utf-8") for path in READMES)
    levels = [
        re.findall(r"^(#+) ", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
        for text in (chinese, english)
    ]
    assert levels[0] == levels[1]
    assert blocks(READMES[0]) == blocks(READMES[1])


def test_links_lead_to_files_of_the_repository(tracked):
    """What is on this disk alone, ignored or left over, is not on the reader's."""
    folders = {parent.as_posix() for name in tracked for parent in Path(name).parents}
    links, broken = 0, []
    for document in (name for name in tracked if name.endswith(".md")):
        for match in LINK.finditer((ROOT / document).read_text(encoding="utf-8")):
            target = (match[1] or match[2]).partition("#")[0]
            if target and not re.match(r"\w+:", target):
                links += 1
                place = os.path.normpath(os.path.join(os.path.dirname(document), target)).replace(os.sep, "/")
                if place not in folders.union(tracked):
                    broken.append(f"{document}: {target}")
    assert links > 20 and not broken, broken


def test_the_first_commands_are_the_quick_start_and_the_tests():
    assert blocks(READMES[1])[0].split("\n")[:2] == ["make quickstart", "make test"]
    makefile = (ROOT / "Makefile").read_text()
    assert (ROOT / ".ci" / "run").read_text().count("make test") == 2
    for target in ("quickstart:", "test:", "test-slow:"):
        assert target in makefile


def test_make_runs_the_commands_of_the_readme():
    makefile = (ROOT / "Makefile").read_text()
    makefile = makefile.replace("$(PY)", "python").replace("$(MINI)", re.search(r"MINI := (.*)", makefile).group(1))
    steps = re.search(r"^quickstart:.*?\n\n", makefile, re.MULTILINE | re.DOTALL).group(0)
    steps = [line.strip() for line in steps.splitlines()[1:] if line.strip()]
    readme = "\n".join(blocks(READMES[1]))
    assert len(steps) == 5
    for step in steps:
        assert step in readme


def test_every_command_names_flags_and_files_that_exist(monkeypatch):
    """Arguments are parsed by each command's own parser; experiment files and keys are loaded."""
    monkeypatch.chdir(ROOT)
    found = [match for block in blocks(READMES[1]) for match in COMMAND.findall(block)]
    assert len(found) > 10
    helps: dict[str, str] = {}
    for script, arguments in found:
        if script not in helps:
            helps[script] = subprocess.run(
                [sys.executable, str(ROOT / script), "--help"], capture_output=True, text=True, check=True
            ).stdout
        words = shlex.split(arguments)
        for flag in (word for word in words if word.startswith("--")):
            assert flag in helps[script], (script, flag)
        if "--cfg" in words and "..." not in words:
            from simplepose.config import load_config

            load_config(ROOT / words[words.index("--cfg") + 1], [w for w in words if re.match(r"[A-Z]\w*(\.\w+)*=", w)])


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tracked, tmp_path):
    """The section on the bundled set, line by line, in a copy of the checkout, with an epoch or two of training."""
    for name in tracked:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    text = READMES[1].read_text(encoding="utf-8")
    section = text[text.index("\n## Data\n") : text.index("\n## Your own experiments\n")]
    lines = [line for block in re.findall(r"```bash\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    ran = []
    for line in lines:
        words = shlex.split(line)
        if words[0] != "python" or (words[1] == "-m" and words[2] != "zipfile"):
            continue  # unzip is the zipfile line in other words; several GPUs are not at hand
        if "train.py" in line:
            words += ["MODEL.PRETRAINED=", "TRAIN.END_EPOCH=2" if "TRAIN.RESUME" in line else "TRAIN.END_EPOCH=1"]
        finished = subprocess.run(
            [sys.executable, *words[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=600
        )
        assert finished.returncode == 0, f"{line}\n{finished.stderr}"
        ran.append(words[1])
    assert {"pose_estimation/train.py", "pose_estimation/valid.py", "pose_estimation/infer.py"} <= set(ran)
    assert (tmp_path / "output" / "scores.json").exists()


def test_the_extras_are_the_requirements_dealt_out():
    text = (ROOT / "pyproject.toml").read_text()
    listed = {
        line.split("  #")[0].strip()
        for file in ("requirements.txt", "tests/requirements.txt")
        for line in (ROOT / file).read_text().splitlines()
        if line and not line.startswith("#")
    }
    base = re.search(r"^dependencies = (\[.*?\])", text, re.MULTILINE | re.DOTALL).group(1)
    extras = text[text.index("[project.optional-dependencies]") : text.index("[tool.setuptools]")]
    dealt = set(re.findall(r'"([^"]+)"', base + extras))
    assert {name for name in dealt if not name.startswith("simplepose[")} == listed
