"""Time of `unlabeled --help` and `unlabeled plugins`, and whether torch was imported; exits 1 above 0.3 s."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

CODE = "import sys; from unlabeled.cli.main import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"


def main() -> int:
    """Measure and judge."""
    failed = False
    for argument in ("--help", "plugins"):
        seconds = []
        for _ in range(11):
            start = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", CODE, argument], stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
            failed |= done.returncode != 0
        median = statistics.median(seconds)
        print(f"unlabeled {argument}: median {median:.3f} s, {min(seconds):.3f} … {max(seconds):.3f} s")
        failed |= median > 0.3
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
