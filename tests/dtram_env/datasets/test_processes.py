"""Worker processes: none outlives the process that started it, however it ended."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# The file by its path, as the package would be imported for seconds by every worker.
PROGRAM = """
import sys, time
sys.path.append("dtram_env/datasets")
import processes
with processes.process_pool(2) as pool:
    list(pool.map(print, ["working"] * 2))
    sys.stdout.flush()
    pool.submit(time.sleep, 0.1)
    print("begun", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("name", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_workers_end_with_the_process_that_started_them(name: signal.Signals) -> None:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, **streams) as process:
        try:
            assert process.stdout is not None
            while process.stdout.readline() != "begun\n":
                assert process.poll() is None
            process.send_signal(name)
            # The streams end when no process has them open any more.
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == -name
