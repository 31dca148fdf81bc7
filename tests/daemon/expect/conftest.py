"""The ground of these tests is a module of this folder; importlib mode needs to be told where it lives."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
