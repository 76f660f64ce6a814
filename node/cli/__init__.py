"""The command line. One file per subject; nothing heavy is imported before a command needs it."""

from node.cli.app import main

__all__ = ["main"]
