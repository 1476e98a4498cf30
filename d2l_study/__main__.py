"""`python -m d2l_study`."""

from d2l_study.cli import main
from d2l_study.command_line import leave

if __name__ == "__main__":
    leave(main())
