"""Measurements that want a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile


def cold_and_warm(module: str, *arguments: str) -> tuple[str, str]:
    """What a module prints with an empty cache folder, and then with the folder that this left."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "SUMMAND_CACHE_DIR": folder}
        command = [sys.executable, "-m", module, *arguments]
        outputs = [
            subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            for _ in range(2)
        ]
    return outputs[0].stdout, outputs[1].stdout
