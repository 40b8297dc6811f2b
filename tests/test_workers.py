"""Workers run side by side, say how far they are, and end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

JOBS = """
import os, time
from pathlib import Path

def square(number, report):
    report("squaring", number, 10)
    return number * number

def fail(report):
    raise ValueError("no such thing")

def vanish(report):
    os.kill(os.getpid(), 9)

def libraries(report):
    import logging
    logging.getLogger("bitsandbytes.autograd._functions").warning("inputs will be cast")
    logging.getLogger("bitsandbytes.autograd._functions").error("a real fault")

def linger(file, report):
    Path(file).write_text(str(os.getpid()))
    time.sleep(600)
"""
MAIN = """
import sys
import jobs
from unmirage.workers import spread

if __name__ == "__main__":
    {body}
"""


def start(folder: Path, body: str) -> subprocess.Popen[str]:
    (folder / "jobs.py").write_text(JOBS)
    (folder / "main.py").write_text(MAIN.format(body=body))
    return subprocess.Popen(
        [sys.executable, str(folder / "main.py")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_results_come_in_order_and_progress_arrives(tmp_path: Path) -> None:
    body = "print(spread([(jobs.square, (n,)) for n in range(4)], 2, lambda *said: print(said)))"
    output, _ = start(tmp_path, body).communicate(timeout=120)
    lines = output.splitlines()
    assert lines[-1] == "[0, 1, 4, 9]"
    assert sorted(lines[:-1]) == [f"('squaring', {n}, 10)" for n in range(4)]


def test_advice_of_libraries_is_kept_back_in_workers_and_faults_are_not(tmp_path: Path) -> None:
    process = start(tmp_path, "spread([(jobs.libraries, ()), (jobs.libraries, ())], 2, print)")
    _, errors = process.communicate(timeout=120)
    assert "inputs will be cast" not in errors
    assert errors.count("a real fault") == 2


def test_an_error_of_one_job_ends_the_others(tmp_path: Path) -> None:
    body = f"spread([(jobs.linger, ({str(tmp_path / 'pid')!r},)), (jobs.fail, ())], 2, print)"
    process = start(tmp_path, body)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "no such thing" in errors


def test_a_worker_that_is_killed_is_an_error_and_not_an_endless_wait(tmp_path: Path) -> None:
    process = start(tmp_path, "spread([(jobs.vanish, ())], 1, print)")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "UserError: a worker process was ended from outside" in errors


@pytest.mark.skipif(sys.platform == "win32", reason="signals as on POSIX")
def test_a_parent_that_is_killed_leaves_no_orphan(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    process = start(tmp_path, f"spread([(jobs.linger, ({str(pid)!r},))], 1, print)")
    deadline = time.monotonic() + 100
    while not (pid.exists() and pid.read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    worker = int(pid.read_text())
    started = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    while any(map(alive, {worker, *started})):
        assert time.monotonic() < deadline, "the worker, or what carries its reports, outlived its parent"
        time.sleep(0.1)


def test_jobs_that_wait_for_one_another_are_an_error_and_not_an_endless_wait(tmp_path: Path) -> None:
    process = start(tmp_path, "spread([(jobs.square, (n,)) for n in range(2)], 2, print, [{1}, {0}])")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "CycleError" in errors


def children(pid: int) -> list[int]:
    """The processes that a process started; none where the system does not tell."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path(f"/proc/{pid}/stat").exists() else False
