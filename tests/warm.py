"""A Python that has loaded Paddle and its like once, and runs each script in a fork of itself: two seconds less a run.

A script has its own process, with its own arguments, folder, environment, output, signals and exit code, as under
`python script.py`; only the loading of libraries is not repeated. Tests of that loading start a Python of their own.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

LOADED = (  # not onnxruntime: it starts a thread, which a fork would wait for in vain
    "cv2", "scipy.io", "onnx", "visualdl", "matplotlib.pyplot", "pycocotools.cocoeval", "json_tricks",
    "easydict", "yaml", "tqdm", "safetensors.numpy",
)  # fmt: skip


class WarmPython:
    """The client. `close` ends the process that forks, and scripts that still run."""

    def __init__(self):
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line = [sys.executable, __file__, str(theirs.fileno())]
        self._server = subprocess.Popen(line, pass_fds=[theirs.fileno()], start_new_session=True)
        theirs.close()

    def start(self, line: Sequence[str], cwd: Path, environment: dict[str, str], stdout: int | None = None) -> Script:
        """Start a script; `line` is its path and arguments, `stdout` a file descriptor instead of text kept."""
        return Script(self._control, list(line), cwd, environment, stdout)

    def close(self) -> None:
        self._control.close()
        self._server.wait()


class Script:
    """A running script, with what the tests use of `subprocess.Popen`."""

    def __init__(self, control: socket.socket, line: list[str], cwd: Path, environment: dict, stdout: int | None):
        self.args = line
        self.returncode: int | None = None
        self._texts = [tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") for _ in range(2)]  # noqa: SIM115
        ended, theirs = os.pipe()
        outputs = [self._texts[0].fileno() if stdout is None else stdout, self._texts[1].fileno()]
        request = json.dumps([line, str(cwd), environment]).encode()
        socket.send_fds(control, [request], [*outputs, theirs])
        os.close(theirs)
        self._ended = os.fdopen(ended, "rb", 0)  # unbuffered, so that `select` knows
        self.pid = self._number()

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = self._number()
            self._ended.close()
        return self.returncode

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def _number(self) -> int:
        return struct.unpack("i", self._ended.read(4))[0]

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What the script wrote to standard output and error, when it has ended."""
        self.wait(timeout)
        for text in self._texts:
            text.seek(0)
        return self._texts[0].read(), self._texts[1].read()


def serve(control: socket.socket) -> list[str]:
    """Fork for every request; returns in each fork, with the line to run."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those below
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 3)
        if not request:  # the client has ended, in whatever way
            os.killpg(0, signal.SIGKILL)
        if os.fork() == 0:  # one that waits for the script, and reports
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            script = os.fork()
            stdout, stderr, report = descriptors
            if script == 0:
                line, cwd, environment = json.loads(request)
                for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), stdout, stderr)):
                    os.dup2(descriptor, number)
                for descriptor in descriptors:
                    os.close(descriptor)
                os.chdir(cwd)
                os.environ.clear()
                os.environ.update(environment)
                return line
            for descriptor in (0, 1, 2, stdout, stderr):  # whoever reads a pipe sees the script's end
                os.close(descriptor)
            os.write(report, struct.pack("i", script))
            os.write(report, struct.pack("i", os.waitstatus_to_exitcode(os.waitpid(script, 0)[1])))
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)


def main() -> None:
    package = str(Path(__file__).resolve().parent.parent / "lib")
    sys.path.insert(0, package)
    from simplepose.machine.paddle_start import start_paddle

    os.environ.update(OPENCV_LOG_LEVEL="OFF", OPENCV_FFMPEG_LOGLEVEL="-8")  # as `run_command` sets them
    start_paddle()
    for name in LOADED:
        try:
            importlib.import_module(name)
        except ImportError:  # the script that needs it will say so
            continue
    sys.path.remove(package)  # a script brings the package of its own checkout
    for name in [name for name in sys.modules if name.partition(".")[0] == "simplepose"]:
        del sys.modules[name]
    line = serve(socket.socket(fileno=int(sys.argv[1])))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((1, "stdout"), (2, "stderr")):
        setattr(sys, name, open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False))  # noqa: SIM115
    sys.stderr.reconfigure(line_buffering=True)
    sys.argv = line
    sys.path[0] = os.path.dirname(line[0])
    code = 0
    try:
        runpy.run_path(line[0], run_name="__main__")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    # Python's own end, without half a second to free what Paddle has loaded.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
