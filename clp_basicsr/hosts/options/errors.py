"""What is raised for options with which a run cannot be what it is meant to be."""

from __future__ import annotations


class OptionFileError(ValueError):
    """Options, or the data they name, with which BasicSR cannot start or go on."""
