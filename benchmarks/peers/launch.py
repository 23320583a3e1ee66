"""Run a command and say what it took, with its last words: a JSON object on standard output.

    python launch.py SECONDS COMMAND [ARGUMENT ...]

A process apart, and a small one: what a parent has in memory counts as its child's peak until the
child begins. Knows nothing of onnxpress.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time


def main() -> None:
    """Run it, end it with all it started when the time is up."""
    limit, command = float(sys.argv[1]), sys.argv[2:]
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        errors="replace",
    )
    try:
        said, _ = process.communicate(timeout=limit)
        message = next((line for line in reversed(said.splitlines()) if line.strip()), "")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        message = f"more than {limit:.0f} s"
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = {
        "status": process.returncode,
        "wall_s": time.monotonic() - started,
        "processor_s": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1024,
        "message": message.strip(),
    }
    print(json.dumps(took))


if __name__ == "__main__":
    main()
