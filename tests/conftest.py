"""Lets every test import what stands beside this file, such as `make_study`."""

import os
import sys
from pathlib import Path

# A report takes seconds at the end of every study; tests of reports ask for it.
os.environ.setdefault("D2L_REPORT", "no")

sys.path.insert(0, str(Path(__file__).parent))
