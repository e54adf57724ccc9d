"""Gives the engine's tests `Drive`, an EngineCore in virtual time."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
