"""How flags may be written, in every command; what is wrong with them is one line and exit code 2."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simplepose.build.model import run_folder_of
from simplepose.commands.cli import Parser, config_parser, parse_flags
from simplepose.config.load import load_config
from simplepose.core.errors import run_command as run_main
from simplepose.core.files import written_whole

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = sorted(
    path.name for path in (ROOT / "pose_estimation").glob("*.py") if path.name not in ("_init_paths.py", "deploy.py")
)


def parser() -> Parser:
    made = config_parser("", needs_cfg=False)
    made.add_argument("--batch-size", type=int)
    made.add_argument("--bbox", action="append")
    made.add_argument("--kpt-thr", type=float)
    made.add_argument("--show", action="store_true")
    return made


@pytest.mark.parametrize("flag", ["--batch_size", "--batch-size", "--batch_s"])
@pytest.mark.parametrize("form", [["{}", "3"], ["{}=3"]])
def test_underscores_are_hyphens(monkeypatch, flag, form):
    monkeypatch.setattr(sys, "argv", ["x.py", "A_B.C_D=e_f", *(part.format(flag) for part in form), "X=--y_z"])
    args, _ = parse_flags(parser())
    assert (args.batch_size, args.overrides) == (3, ["A_B.C_D=e_f", "X=--y_z"])


def test_numbers_may_start_with_a_minus_sign(monkeypatch):
    words = "--bbox -60,-10,400,512 --show --bbox -.5,0,1,1 --kpt-thr -1 --bbox 1,2,3,4 -1".split()  # noqa: SIM905
    monkeypatch.setattr(sys, "argv", ["x.py", *words])
    args, _ = parse_flags(parser())
    assert args.bbox == ["-60,-10,400,512", "-.5,0,1,1", "1,2,3,4"]
    assert (args.kpt_thr, args.show, args.overrides) == (-1, True, ["-1"])


@pytest.mark.parametrize("words", [["--batchsize", "3"], ["--btach_size=3"], ["A.B=c", "--bach-size", "3", "--show"]])
def test_a_typo_is_told_the_nearest_flag(monkeypatch, capsys, words):
    monkeypatch.setattr(sys, "argv", ["x.py", *words])
    with pytest.raises(SystemExit) as ended:
        parse_flags(parser())
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "did you mean --batch-size?" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_does_so(command):
    """In one process each, without Paddle; a wrong flag is refused before a missing one."""
    before = {"coco_files.py": ["subset", "x.json"], "data_tools.py": ["stats", "x.json"]}.get(command, [])
    words = [*before, "--out_putt=3"]
    line = [sys.executable, str(ROOT / "pose_estimation" / command), *words]
    finished = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 2
    assert "there is no --out-putt" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_a_folder_that_is_closed_to_us_is_a_line(capsys):
    def main():
        raise PermissionError(13, "Permission denied", "photos/a.jpg")  # as `Path.is_dir` does

    assert run_main(main) == 2
    assert capsys.readouterr().err == "error: [Errno 13] Permission denied: 'photos/a.jpg'\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
def test_sigterm_leaves_no_scratch_files(tmp_path, capsys):
    def main():
        with written_whole(tmp_path / "scores.json") as scratch:
            scratch.write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    assert run_main(main) == 143
    assert capsys.readouterr().err == "terminated\n"
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_file_name_that_is_not_utf8_can_be_printed(monkeypatch):
    """As of photographs from an archive that was packed on another system."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))
    assert run_main(lambda: print(os.fsdecode(b"caf\xe9.jpg"))) == 0
    sys.stdout.flush()
    assert sys.stdout.buffer.getvalue().rstrip() == b"caf\\udce9.jpg"


def test_detected_boxes_are_coco_s(posenet, run_command):
    for flags in (["--use-detect-bbox"], ["--coco-bbox-file", "boxes.json"]):
        finished = run_command("valid.py", "--model-file", posenet[0], *flags)
        assert finished.returncode == 2
        assert f"{flags[0]} goes with COCO, and DATASET.DATASET is mpii" in finished.stderr


def test_a_run_s_own_configuration_belongs_to_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(ROOT / "experiments/mini/resnet18/128x128_d128x3_adam_lr1e-3.yaml")
    folder = run_folder_of(config, "experiments/small.yaml")
    assert folder.name == "small"
    assert run_folder_of(config, folder / "config.yaml") == folder  # and not one called config
    monkeypatch.chdir(folder.parent if folder.mkdir(parents=True) else folder)
    assert run_folder_of(config, "config.yaml") == folder
    assert run_folder_of(config, tmp_path / "config.yaml").name == "config"  # somebody's own name for an experiment
