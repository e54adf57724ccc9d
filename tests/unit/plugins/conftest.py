"""The plugin is a distribution of its own and not installed here: its folder is put on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "plugins" / "sglang"))
