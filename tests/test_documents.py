"""README and docs/ say the same in both languages, and what they say works."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simplepose.core.bundled import CHECKOUT, NAME

ROOT = Path(__file__).resolve().parent.parent
BUNDLED = CHECKOUT / NAME
PAGES = sorted(path.name for path in (ROOT / "docs" / "en").glob("*.md"))
PAIRS = [("README.md", "README_EN.md"), *((f"docs/zh/{name}", f"docs/en/{name}") for name in PAGES)]
ENGLISH = [english for _, english in PAIRS]

LINK = re.compile(r"""\]\(([^)\s]+)|<(?:img|a)\b[^>]*\b(?:src|href)="([^"]+)""")
KEY = re.compile(r"(?:DATASET|MODEL|LOSS|TRAIN|TEST|DEBUG|CUDNN)(?:\.[A-Z_0-9]*[A-Z0-9])+")
OVERRIDE = re.compile(r"[A-Z]\w*(\.\w+)*=")
NOT_OURS = (".", "cd", "unzip", "visualdl", "python3", "npm")  # what a line may begin with, besides python and make


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The files that a clone has."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files belong to it")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return list(filter(None, listed.stdout.split("\0")))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str = r"\w*") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", read(name), re.MULTILINE | re.DOTALL)


def prose(name: str) -> str:
    return re.sub(r"^```.*?^```", "", read(name), flags=re.MULTILINE | re.DOTALL)


def inline_code(name: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", prose(name)))


def links(name: str) -> list[str]:
    return [(match[1] or match[2]) for match in LINK.finditer(prose(name))]


def anchors(name: str) -> set[str]:
    """What GitHub calls a document's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(name: str, heading: str) -> str:
    """From a heading to the next of its level or above."""
    text = read(name)
    start = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert start, f"{name} has no heading {heading!r}"
    rest = text[start.end() :]
    no_blocks = re.sub(r"```.*?```", lambda block: " " * len(block[0]), rest, flags=re.DOTALL)  # comments begin with #
    end = re.search(rf"^#{{1,{len(start[1])}}} ", no_blocks, re.MULTILINE)
    return rest[: end.start()] if end else rest


@functools.cache
def help_of(*command: str) -> str:
    line = [sys.executable, *command, "--help"]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def commands(text: str) -> list[list[str]]:
    """The words of every command line in shell blocks, `NAME=value` lines filled in."""
    found, names = [], {}
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if assignment := re.fullmatch(r"([A-Z]+)=(\S+)", line):
                names[assignment[1]] = assignment[2]
            elif line:
                found.append(shlex.split(re.sub(r"\$([A-Z]+)", lambda match: names[match[1]], line)))
    return found


def test_both_languages_have_the_same_pages():
    assert sorted(path.name for path in (ROOT / "docs" / "zh").glob("*.md")) == PAGES
    assert len(PAGES) > 10
    for readme, language in zip(PAIRS[0], ("zh", "en")):  # and each README leads to all of its own
        assert {f"docs/{language}/{name}" for name in PAGES} <= {link.partition("#")[0] for link in links(readme)}


@pytest.mark.parametrize("chinese, english", PAIRS, ids=ENGLISH)
def test_both_languages_say_the_same(chinese, english):
    """As far as a program can tell: structure, commands, names in the text, figures and links."""
    levels = [re.findall(r"^(#+) ", prose(name), re.MULTILINE) for name in (chinese, english)]
    assert levels[0] == levels[1]
    assert blocks(chinese) == blocks(english)
    assert inline_code(chinese) == inline_code(english)
    figures = [sorted(re.findall(r"\d+\.\d+", prose(name))) for name in (chinese, english)]
    assert figures[0] == figures[1]
    targets = [
        sorted(link.partition("#")[0].replace("/zh/", "/en/").replace("README_EN", "README") for link in links(name))
        for name in (chinese, english)
    ]
    assert targets[0] == targets[1]
    assert read(chinese).count("\n|") == read(english).count("\n|"), "rows of tables"


def test_links_lead_to_files_of_the_repository(tracked):
    """What is on this disk alone, ignored or left over, is not on the reader's; and headings are where links look."""
    folders = {parent.as_posix() for name in tracked for parent in Path(name).parents}
    count, broken = 0, []
    for document in (name for name in tracked if name.endswith(".md")):
        for link in links(document):
            target, _, anchor = link.partition("#")
            if re.match(r"\w+:", link):
                continue
            count += 1
            place = os.path.normpath(os.path.join(os.path.dirname(document), target)) if target else document
            place = place.replace(os.sep, "/")
            known = place in folders.union(tracked)
            if not known or (anchor and anchor not in anchors(place)):
                broken.append(f"{document}: {link}")
    assert count > 100 and not broken, broken


def test_the_quick_start_is_make_quickstart_and_make_test():
    assert commands(section("README_EN.md", "Quick start")) == [["make", "quickstart"], ["make", "test"]]
    assert read(".ci/run").count("make test") == 2
    for target in ("quickstart:", "test:", "test-slow:"):
        assert target in read("Makefile")


def test_make_runs_the_commands_of_the_documents():
    makefile = read("Makefile")
    makefile = makefile.replace("$(PY)", "python").replace("$(MINI)", re.search(r"MINI := (.*)", makefile).group(1))
    steps = re.search(r"^quickstart:.*?\n\n", makefile, re.MULTILINE | re.DOTALL).group(0)
    steps = [line.strip() for line in steps.splitlines()[1:] if line.strip()]
    assert len(steps) == 5
    documented = commands(section("docs/en/install.md", "The quick start without make"))
    assert [shlex.split(step) for step in steps] == documented


@pytest.mark.parametrize("document", [*ENGLISH, "cocoapi/README.md"])
def test_every_command_names_flags_and_files_that_exist(document, tracked, monkeypatch):
    """Flags are looked up in each script's --help; experiment files and keys are loaded."""
    from simplepose.config.load import load_config

    monkeypatch.chdir(ROOT)
    for words in commands(read(document)):
        scripts = [word for word in words if word.endswith(".py") and word in tracked]
        if words[0] == "make":
            assert f"\n{words[1]}:" in read("Makefile"), words
        if words[0] == "make" or not scripts:
            assert words[0] in ("make", *NOT_OURS) or words[1] == "-m", f"no such script: {words}"
            continue
        arguments = words[words.index(scripts[0]) + 1 :]
        command = (
            [scripts[0], arguments[0]] if scripts[0].endswith(("coco_files.py", "data_tools.py")) else [scripts[0]]
        )
        for flag in (word for word in arguments if word.startswith("--")):
            assert re.search(rf"{flag}\b", help_of(*command)), (command, flag)
        overrides = [word for word in arguments if OVERRIDE.match(word)]
        if overrides or "--cfg" in arguments:
            cfg = ROOT / arguments[arguments.index("--cfg") + 1] if "--cfg" in arguments else None
            load_config(cfg, overrides)


def test_keys_and_flags_in_the_text_exist(tracked):
    from simplepose.config.load import get_key
    from simplepose.config.schema import DEFAULTS

    scripts = (name for name in tracked if re.fullmatch(r"pose_estimation/[a-z]\w+\.py", name))
    helps = "".join(map(help_of, [*scripts, "benchmarks/bench.py"]))
    tools = "pose_estimation/data_tools.py"
    helps += "".join(help_of(tools, name) for name in re.search(r"{([\w,-]+)}", help_of(tools))[1].split(","))
    other_tools = {"--host", "--nproc_per_node", "--backend", "--gpus", "--rank", "--help"}
    for document in ENGLISH:
        for code in inline_code(document):
            for key in set(KEY.findall(code)):
                if not key.startswith("DEBUG.SAVE"):  # a name for four keys
                    get_key(DEFAULTS, key)
            for flag in set(re.findall(r"--[a-z][\w-]+", code)) - other_tools:
                if not flag.endswith("-"):
                    assert flag in helps, (document, flag)


def test_the_code_tour_names_files_that_exist(tracked):
    for name in inline_code("docs/en/code-tour.md"):
        if re.fullmatch(r"[\w/]+/|[\w/]+/\w+\.py", name) and not name.startswith(("pose_estimation", "lib/", "tests/")):
            assert any(file.startswith(f"lib/simplepose/{name}") for file in tracked), name


def test_scores_on_lspet_are_told_apart_from_mpiis(tracked):
    """Its head boxes are made from neck and head top, which whoever reads a score has to know."""
    for document in (name for name in tracked if name.endswith((".md", ".yaml"))):
        text = read(document)
        if "PCKh" in text and re.search("LSPET|data/lspet", text):
            assert re.search("neck and head top|颈部和头顶", text), document


@pytest.mark.slow
def test_the_commands_of_the_documents_run(tracked, tmp_path, run_command):
    """Line by line in a copy of the checkout, on the bundled set, with an epoch or two of training."""
    for name in tracked:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    ran: set[tuple[str, ...]] = set()

    def run(document: str, *headings: str) -> None:
        text = "".join(section(document, heading) for heading in headings) if headings else read(document)
        for words in commands(text):
            if words[0] != "python" or tuple(words) in ran or not runs_here(words):
                continue
            ran.add(tuple(words))
            words = words[1:]
            if words[0].endswith("/make_mini.py"):
                words += ["--train-images=8", "--valid-images=4"]
            if words[0].endswith("/train.py"):
                epochs = 2 if "TRAIN.RESUME=True" in words else 1
                words += ["MODEL.PRETRAINED=", f"TRAIN.END_EPOCH={epochs}"]
                words += ["TRAIN.BATCH_SIZE=1"] if "--profile" in words else []
            if words[0] == "-m":
                finished = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True)
            else:
                finished = run_command(Path(words[0]).name, *words[1:], cwd=tmp_path, checkout=tmp_path)
            assert finished.returncode == 0, f"{shlex.join(words)}\n{finished.stderr}\n{finished.stdout[-2000:]}"

    def runs_here(words: list[str]) -> bool:
        if {"--detector", "--show"}.intersection(words):  # no detector is at hand, no screen, COCO or LSPET
            return False
        if any(word.startswith(("data/coco/", "data/lspet")) for word in words):
            return False
        named = {"--model-file", "--model", "--cfg"}.intersection(words)
        if Path(words[1]).name in ("infer.py", "export.py", "deploy.py") and not named and not BUNDLED.exists():
            return False
        return words[1].startswith("pose_estimation/") or words[1:3] == ["-m", "zipfile"]

    run("docs/en/data.md", "The bundled mini set")
    run("docs/en/training.md", "Train", "Interrupting and resuming", "Validate", "Evaluate")
    assert (tmp_path / "output" / "scores.json").exists()

    run("docs/en/analysis.md", "Run it")
    prepare_files_of_a_reader(tmp_path, run_command)
    run("docs/en/own-keypoints.md", "6. From 50 images to ONNX")
    (task, *_), poses = (json.loads((tmp_path / "pre/train.json").read_text()), (tmp_path / "poses.csv").read_text())
    assert task["predictions"][0]["model_version"] == "cats.onnx" and poses.count("\n") == 51
    assert "data:image" in (tmp_path / "check.html").read_text(encoding="utf-8")
    run("docs/en/weights.md")
    run("docs/en/export.md")
    run("docs/en/inference.md")
    run("README_EN.md", "A pose on your own photograph", "Export and deployment")
    scripts = {Path(words[1]).name for words in ran}
    assert {"train.py", "valid.py", "infer.py", "export.py", "parity.py", "deploy.py", "convert.py"} <= scripts


def prepare_files_of_a_reader(place: Path, run_command) -> None:
    """The files that documents take for granted: weights, a photograph, a folder of them, boxes, a video."""
    import cv2

    def run(script: str, *arguments: str) -> None:
        run_command(script, *arguments, cwd=place, checkout=place).check_returncode()

    published = next(place.glob("output/mpii/pose_resnet_50/*/model_best.pdparams"))
    run("convert.py", "--from", str(published), "--to", "original.pth")
    (place / "original.pth").rename(place / "pose_resnet_50_256x256.pth.tar")
    small = "experiments/mini/resnet18/128x128_d128x3_adam_lr1e-3.yaml"  # to export in no time
    run("train.py", "--cfg", small, "TRAIN.END_EPOCH=1", "DATASET.ROOT=data/mpii", "OUTPUT_DIR=small")
    shutil.copy(next(place.glob("small/**/model_best.pdparams")), place / "best.pdparams")
    image = cv2.imread(str(ROOT / "images" / "test.jpg"))
    for folder in ("photos", "shots/today"):
        (place / folder).mkdir(parents=True)
    for name in ("photo.jpg", "photos/one.jpg", "photos/two.jpg", "shots/today/one.png"):
        cv2.imwrite(str(place / name), image)
    (place / "boxes.csv").write_text("image,x,y,w,h\none,60,0,400,512\ntwo,60,0,400,512\n")
    write_cats(place / "cats")
    video = cv2.VideoWriter(str(place / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (512, 512))
    for _ in range(3):
        video.write(image)
    video.release()


def write_cats(folder: Path) -> None:
    """50 drawn cats' faces with 5 joints, as Label Studio exports them; an eye is hidden now and then."""
    import cv2
    import numpy as np

    rng, tasks = np.random.default_rng(0), []
    shape = {
        "nose": (0, 5),
        "left_eye": (12, -8),
        "right_eye": (-12, -8),
        "left_ear": (18, -24),
        "right_ear": (-18, -24),
    }
    (folder / "photos").mkdir(parents=True)
    for number in range(50):
        image = np.full((96, 120, 3), rng.integers(120, 240, 3), np.uint8)
        image = np.clip(image + cv2.resize(rng.normal(0, 30, (6, 8, 3)), (120, 96)), 0, 255).astype(np.uint8)
        size, (x, y), fur = rng.uniform(0.8, 1.3), rng.uniform((45, 42), (75, 54)), rng.integers(0, 90, 3).tolist()
        points = {joint: (x + size * dx, y + size * dy) for joint, (dx, dy) in shape.items()}
        cv2.circle(image, (round(x), round(y)), round(24 * size), fur, -1)
        for joint, point in points.items():
            cv2.circle(
                image, tuple(np.rint(point).astype(int).tolist()), 3, (90, 90, 255) if joint == "nose" else fur, -1
            )
        cv2.imwrite(str(folder / "photos" / f"cat_{number}.png"), image)
        size_of = {"original_width": 120, "original_height": 96, "image_rotation": 0, "to_name": "image"}
        box = {
            "x": (x - 26 * size) / 1.2,
            "y": (y - 30 * size) / 0.96,
            "width": 52 * size / 1.2,
            "height": 56 * size / 0.96,
        }
        value = {**box, "rotation": 0, "rectanglelabels": ["cat"]}
        result = [{**size_of, "id": "box", "from_name": "box", "type": "rectanglelabels", "value": value}]
        for joint, (px, py) in points.items():
            value = {"x": px / 1.2, "y": py / 0.96, "width": 0.5, "keypointlabels": [joint]}
            region = {**size_of, "id": joint, "from_name": "joints", "type": "keypointlabels", "value": value}
            result.append({**region, "parentID": "box"})
            if joint == "left_eye" and number % 7 == 0:
                result.append({**region, "type": "choices", "from_name": "seen", "value": {"choices": ["occluded"]}})
        made = {"id": number, "completed_by": 1, "was_cancelled": False, "ground_truth": False, "result": result}
        image_url = f"/data/upload/1/{number:08x}-cat_{number}.png"
        tasks.append({"id": number, "annotations": [made], "predictions": [], "data": {"image": image_url}})
    (folder / "export.json").write_text(json.dumps(tasks))


def test_the_extras_are_the_requirements_dealt_out():
    text = (ROOT / "pyproject.toml").read_text()
    listed = {
        line.split("  #")[0].strip()
        for file in ("requirements", "tests/requirements", "tests/requirements-tracking", "tests/requirements-scale")
        for line in (ROOT / f"{file}.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    base = re.search(r"^dependencies = (\[.*?\])", text, re.MULTILINE | re.DOTALL).group(1)
    extras = text[text.index("[project.optional-dependencies]") : text.index("[tool.setuptools]")]
    dealt = set(re.findall(r'"([^"]+)"', base + extras))
    assert {name for name in dealt if not name.startswith("simplepose[")} == listed
