"""`python -m d2l_study`."""

import sys

from d2l_study.cli import main

if __name__ == "__main__":
    sys.exit(main())
