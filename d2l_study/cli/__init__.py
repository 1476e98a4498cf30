"""The command line: one thin layer over `study`. Heavy packages are imported by the command that needs them."""

from d2l_study.cli.entry import command_parser, main

__all__ = ["command_parser", "main"]
