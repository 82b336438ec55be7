"""What a terminal would show of a line that was written for one."""

from __future__ import annotations

import re

# Control sequences (ECMA-48, 5.4) but those of colours (… m), which Prefect's UI draws; titles, links; character sets.
_MOVES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-ln-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][0-9A-Za-z]|[78=>cDEHM])")


def shown(text: str) -> str:
    """The line as it stands in the end: the last step of a progress bar; colours, but nothing that moves the cursor."""
    if "\r" in text:
        text = text.rstrip("\r").rpartition("\r")[2]
    if "\x1b" in text:
        text = _MOVES.sub("", text)
    return text
