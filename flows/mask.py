"""Hides secret values, as they are and as programs commonly write them: escaped, quoted, encoded, line by line."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from prefect_jobs.blocks.engine import LogLine, Stream

_MASK = "***"
_SHORTEST_SECRET = 3
# What is found inside a value, or encoded, hides more than it should where it is short.
_SHORTEST_PART = 6
# Characters of a line beyond which it may go on in the next one.
_LONGEST_WHOLE = 250_000
# Control sequences (ECMA-48, 5.4).
_CONTROLS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_QUOTED = re.compile(r"%[0-9A-F]{2}")


class Mask:
    """Hides secret values in whatever is shown.

    Values of fewer than three characters are not hidden: they would be everywhere.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._forms = sorted({form for value in values for form in _forms(value)}, key=len, reverse=True)
        self.longest = len(self._forms[0]) if self._forms else 0
        """Characters of the longest text that is hidden."""

    def __call__(self, text: str, after: str = "") -> str:
        """The text with every secret value masked.

        ``after`` is the end of what came before it, where a text that was too long came in pieces: a value that begins
        there is masked too.
        """
        if "\x1b" in text:
            plain = _CONTROLS.sub("", text)
            if any(form in plain for form in self._forms):
                text = plain  # Colours may begin in the middle of a value; such a line is shown without them.
        spans = [(0, len(form) - cut) for form in self._forms for cut in _cuts(form, after, text)] if after else []
        # One pass for each form: most lines hold none, and searching for one is what Python does fastest.
        for form in self._forms:
            if form in text:
                spans += [(match.start(), match.start() + len(form)) for match in _everywhere(form, text)]
        return _without(text, spans) if spans else text


class MaskedLines:
    """Masks the lines of one log, also a value that stands where a line was too long to come whole."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._cut: dict[Stream, str] = {"stdout": "", "stderr": ""}

    def __call__(self, line: LogLine) -> str:
        """The line's text, without secrets and without the one character that no database takes."""
        written = line.text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
        text = self._mask(written, after=self._cut[line.stream])
        # The next line may be the rest of this one (see `LONGEST_LINE` of the engines).
        self._cut[line.stream] = written[-self._mask.longest - 1 :] if len(written) > _LONGEST_WHOLE else ""
        return text


def _everywhere(form: str, text: str) -> Iterator[re.Match[str]]:
    """All places of a form, those that overlap included."""
    return re.finditer(f"(?={re.escape(form)})", text)


def _cuts(form: str, before: str, text: str) -> Iterator[int]:
    """How much of a form stands at the end of one piece where the other one begins with the rest."""
    for cut in range(1, len(form)):
        if before.endswith(form[:cut]) and text.startswith(form[cut:]):
            yield cut


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """The text with a mask in place of each stretch; stretches that touch are one."""
    pieces: list[str] = []
    end = 0
    for start, stop in sorted(spans):
        if start > end or not pieces:
            pieces += [text[end:start], _MASK]
        end = max(end, stop)
    return "".join([*pieces, text[end:]])


def _forms(value: str) -> set[str]:
    """How a value may show up."""
    whole = value.strip()
    if len(whole) < _SHORTEST_SECRET:
        return set()
    parts = {leaf for leaf in _leaves(whole) if len(leaf) >= _SHORTEST_PART}
    forms = {form for part in {value, whole, *parts} for form in (*_written(part), *_base64(part.encode()))}
    for part in (whole, *parts):
        lines = {line.strip() for line in part.splitlines()}
        forms |= {form for line in lines for form in (line, json.dumps(line)[1:-1]) if len(line) >= _SHORTEST_SECRET}
    return forms


def _leaves(value: str) -> Iterator[str]:
    """The texts in a value that is a JSON object or list, such as a service account's key."""
    try:
        waiting: list[Any] = [json.loads(value)] if value[0] in "{[" else []
    except ValueError:
        return
    while waiting:
        match waiting.pop():
            case dict() as found:
                waiting += found.values()
            case list() as found:
                waiting += found
            case str() as found:
                yield found.strip()


def _written(value: str) -> Iterator[str]:
    """A value as programs write it: plain, in JSON (twice), in Python, in a shell, in a URL, in HTML."""
    yield value
    for in_json in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        yield in_json
        yield in_json.replace("/", "\\/")
        yield json.dumps(in_json)[1:-1]
    yield repr(value)[1:-1]
    yield value.replace("'", "'\\''")
    for in_url in (quote(value), quote(value, safe=""), quote_plus(value)):
        yield in_url
        yield _QUOTED.sub(lambda found: found[0].lower(), in_url)
    yield html.escape(value)


def _base64(value: bytes) -> Iterator[str]:
    """A value in Base64, wherever it stands in what was encoded: without the characters that its neighbours change."""
    if len(value) < _SHORTEST_PART:
        return
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(value).decode().rstrip("=")
        for before in range(3):
            whole_characters = slice((0, 2, 3)[before], (before + len(value)) * 8 // 6)
            yield encode(bytes(before) + value).decode()[whole_characters]
