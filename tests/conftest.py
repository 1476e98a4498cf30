"""Lets every test import what stands beside this file, such as `make_study`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
