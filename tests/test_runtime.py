"""The machine around a training: settings, signals, lost terminals, folders that several processes want."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from simplepose.core.errors import run_command
from simplepose.core.files import read_json, write_json
from simplepose.machine.paddle_start import _is_amd_with_avx2
from simplepose.machine.provenance import machine
from simplepose.training.run_folder import set_aside

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = f"""
import sys; sys.path.insert(0, {str(ROOT / "lib")!r}); sys.modules["paddle"] = None
import os
from simplepose.machine import paddle_start
paddle_start.import_paddle = lambda: None
del sys.modules["paddle"]
print(paddle_start.start_paddle())
"""
OURS = ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")


def chosen(**settings: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**environment, **settings}, capture_output=True, text=True, check=True
    )
    return finished.stdout.strip()


def test_threads_follow_the_processors_and_the_users_word_wins():
    from simplepose.machine.device import available_cores

    assert f"OMP_NUM_THREADS={available_cores()} " in chosen()
    assert "OMP_NUM_THREADS=1 " in chosen(OMP_NUM_THREADS="1")
    assert "OMP_NUM_THREADS=1 " in chosen(PADDLE_LOCAL_SIZE=str(available_cores()))  # processes share them
    assert "KMP_BLOCKTIME=7 " in chosen(KMP_BLOCKTIME="7")


@pytest.mark.skipif(platform.system() != "Linux", reason="glibc's allocator is Linux's")
def test_freed_memory_is_kept_unless_the_user_has_a_say():
    assert "freed memory kept" in chosen()
    assert "freed memory kept" not in chosen(MALLOC_ARENA_MAX="2")


@pytest.mark.parametrize(
    ("processor", "switched"),
    [
        ("vendor_id: AuthenticAMD\nflags: fpu avx avx2 bmi1", True),
        ("vendor_id: AuthenticAMD\nflags: fpu avx", False),
        ("vendor_id: GenuineIntel\nflags: fpu avx avx2", False),
    ],
)
def test_only_amd_with_avx2_gets_the_amd_switch(monkeypatch, processor, switched):
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr(Path, "read_text", lambda path: processor)
    assert _is_amd_with_avx2() is switched


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        ("avx2 avx512f avx512_bf16 amx_bf16", "Xeon (AMX), "),
        ("avx2 avx512f avx512_bf16", "Xeon (AVX-512 with bfloat16), "),
        ("avx avx2", "Xeon (AVX2), "),
        ("sse2", "Xeon, "),
    ],
)
def test_a_machine_is_named_with_its_best_instructions(monkeypatch, flags, kind):
    monkeypatch.setattr(Path, "read_text", lambda path: f"model name\t: Xeon\nflags\t\t: {flags}")
    assert machine().startswith(kind)


def python(script: str, *paths: Path, **options) -> subprocess.CompletedProcess:
    """Run a script that sees `paths` before anything else, and lib/."""
    start = f"import sys; sys.path[:0] = {[*map(str, paths), str(ROOT / 'lib')]!r}\n"
    return subprocess.run([sys.executable, "-c", start + script], capture_output=True, text=True, timeout=60, **options)


def test_the_library_leaves_memory_and_threads_to_the_program_it_lives_in(posenet):
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    finished = python(
        f"""
import os
from simplepose import PosePredictor
from simplepose.machine import paddle_start
paddle_start._keep_freed_memory = lambda: print("malloc was told")
before = set(os.environ)
PosePredictor({str(posenet[0])!r})
print(*(name for name in {OURS[1:]!r} if name in os.environ))
""",
        env=environment,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == ""


# --- Signals while Paddle is imported

FAKE_PADDLE = """
import os, signal, sys
sent = int(os.environ["SENT"])
if sent == signal.SIGTERM:
    signal.signal(sent, lambda *_: print("the handler that Paddle brings"))
os.kill(os.getpid(), sent)
print("imported")
def disable_signal_handler():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot hold signals back")
@pytest.mark.parametrize(
    ("sent", "prepare", "code", "said", "complained"),
    [
        (signal.SIGINT, "", 130, "imported", "interrupted\n"),
        (signal.SIGTERM, "", 143, "imported", "terminated\n"),
        (signal.SIGTERM, "signal.signal(15, lambda *_: print('its own'))", 0, "imported its own on", ""),
        (signal.SIGINT, "signal.signal(2, signal.SIG_IGN)", 0, "imported on", ""),  # as under nohup ... &
    ],
)
def test_a_signal_waits_until_paddle_is_imported(tmp_path, sent, prepare, code, said, complained):
    (tmp_path / "paddle.py").write_text(FAKE_PADDLE)
    finished = python(
        f"""
import os, signal
from simplepose.core.errors import run_command
from simplepose.machine.paddle_start import start_paddle
sys.stdout.reconfigure(line_buffering=True)
def main():
    {prepare or "pass"}
    start_paddle()
    print("on")
sys.exit(run_command(main))
""",
        tmp_path,
        env={**os.environ, "SENT": str(int(sent)), "OPENBLAS_NUM_THREADS": "1"},  # a thread of its own would take it
    )
    assert (finished.returncode, finished.stdout.split(), finished.stderr) == (code, said.split(), complained)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no os.kill with SIGINT")
def test_ctrl_c_that_a_library_makes_into_another_error_is_an_interruption_all_the_same(capsys):
    def main(sent: bool) -> None:
        try:
            if sent:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
        except KeyboardInterrupt:
            pass
        raise ImportError("as numpy says")

    before = signal.getsignal(signal.SIGINT)
    assert run_command(lambda: main(True)) == 130
    assert capsys.readouterr().err == "interrupted\n"
    with pytest.raises(ImportError):
        run_command(lambda: main(False))
    assert signal.getsignal(signal.SIGINT) is before


# --- A terminal or disk that is gone


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux's")
@pytest.mark.parametrize("both", [False, True])
def test_a_log_that_nobody_can_take_stops_nothing(tmp_path, both):
    script = f"""
from pathlib import Path
from simplepose.machine import logs
logs.set_up_logging()
logs.log_to(Path({str(tmp_path / "log")!r}))
for line in range(3):
    logs.logger.info("line %d", line)
"""
    with open("/dev/full", "w") as full:
        start = f"import sys; sys.path[:0] = {[str(ROOT / 'lib')]!r}\n"
        finished = subprocess.run(
            [sys.executable, "-c", start + script], stdout=full, stderr=full if both else subprocess.PIPE, text=True
        )
    assert finished.returncode == 0
    assert (tmp_path / "log").read_text().splitlines() == ["line 0", "line 1", "line 2"]
    assert both or (finished.stderr.count("\n") == 1 and "No space left on device" in finished.stderr)


# --- Files and folders


def test_numbers_that_json_does_not_have_are_written_as_null(tmp_path):
    inf, nan = float("inf"), float("nan")
    content = {"a": [1.5, inf, (nan, -inf)], "b": np.array([[1.0, inf]]), "c": np.float32(nan), "d": np.float32(0.5)}
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json") == {"a": [1.5, None, [None, None]], "b": [[1, None]], "c": None, "d": 0.5}


def test_two_runs_that_ended_in_the_same_second_are_both_set_aside(tmp_path):
    run_folder = tmp_path / "run"
    for run in range(3):
        run_folder.mkdir(exist_ok=True)
        (run_folder / "checkpoint").write_text(str(run))
        os.utime(run_folder / "checkpoint", (1e9, 1e9))
        earlier = set_aside(run_folder, [run_folder / "checkpoint"])
        assert (earlier / "checkpoint").read_text() == str(run)
    assert len(list(tmp_path.iterdir())) == 4
    assert not list(run_folder.iterdir())


def test_processes_that_try_the_same_folder_are_not_in_each_others_way(tmp_path):
    script = f"""
import threading
from pathlib import Path
from simplepose.training.run_folder import make_run_folder
threads = [threading.Thread(target=lambda: [make_run_folder(Path({str(tmp_path)!r})) for _ in range(300)])
           for _ in range(4)]
[thread.start() for thread in threads]
"""
    finished = python(script)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert not list(tmp_path.iterdir())


def test_the_commit_is_that_of_ones_own_checkout_alone(tmp_path):
    def git(*arguments: str) -> str:
        line = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x", *arguments]
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()

    def commit_of(folder: Path) -> str:
        compiled = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "lib" / "simplepose", folder / "simplepose", ignore=compiled)
        script = (
            f"sys.path[0] = {str(folder)!r}\nfrom simplepose.machine.provenance import git_commit\nprint(git_commit())"
        )
        finished = python(script, Path("replaced"))
        assert finished.returncode == 0, finished.stderr
        return finished.stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "of somebody else")
    assert commit_of(tmp_path / ".venv/lib/python3/site-packages") == "unknown"
    assert commit_of(tmp_path / "lib") == git("rev-parse", "--short=12", "HEAD")
