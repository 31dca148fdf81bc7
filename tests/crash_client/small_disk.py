"""Kills on a disk that is full: small_disk.py FOLDER KILLS SEED, run inside `unshare --user --map-root-user --mount`.

FOLDER becomes a file system in memory of some hundred KiB that only this process sees and that goes with it. Prints the account.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from crash_client.trials import Trials

SIZE = "1m"

folder, kills, seed = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", folder], check=True)
trials = Trials(Path(folder), int(seed))
for _ in range(int(kills)):
    trials.run("full")
print(trials.figures.as_json())
