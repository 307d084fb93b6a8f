"""What is set before Paddle loads, and that a user's own setting wins."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = f"""
import sys; sys.path.insert(0, {str(ROOT / "lib")!r}); sys.modules["paddle"] = None
import os
from simplepose import runtime
runtime._import_paddle_quietly = lambda: None
del sys.modules["paddle"]
print(runtime.start_paddle())
"""
OURS = ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")


def chosen(**settings: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**environment, **settings}, capture_output=True, text=True, check=True
    )
    return finished.stdout.strip()


def test_threads_follow_the_processors_and_the_users_word_wins():
    from simplepose.runtime import available_cores

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
    from simplepose import runtime

    monkeypatch.setattr(runtime.platform, "system", lambda: "Linux")
    monkeypatch.setattr(runtime.Path, "read_text", lambda path: processor)
    assert runtime._is_amd_with_avx2() is switched
