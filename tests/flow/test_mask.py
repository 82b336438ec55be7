"""Secret values are hidden as they are and as programs commonly write them."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import time
from urllib.parse import quote, quote_plus, urlencode

import pytest

from prefect_jobs.flows.mask import Mask

VALUE = "pä$$/w\"rd+it's\\no=secret&<x>"
PEM = "-----BEGIN KEY-----\n    MIIabcdef+/=\n    \nMIIghijkl\n-----END KEY-----\n"


@pytest.mark.parametrize(
    "written",
    [
        VALUE,
        json.dumps({"token": VALUE}),
        json.dumps({"token": VALUE}, ensure_ascii=False),
        json.dumps({"token": VALUE}).replace("/", "\\/"),
        json.dumps({"inner": json.dumps({"token": VALUE})}),
        repr({"token": VALUE}),
        shlex.quote(VALUE).replace("'\"'\"'", "'\\''"),
        f"https://host/{quote(VALUE)}",
        f"https://host/?token={quote(VALUE, safe='')}",
        urlencode({"token": VALUE}),
        re.sub("%..", lambda found: found[0].lower(), quote_plus(VALUE)),
        f"<a title='{html.escape(VALUE)}'>",
    ],
)
def test_a_value_is_hidden_however_it_is_written(written: str) -> None:
    masked = Mask([VALUE])(written)
    assert "***" in masked
    assert "secret" not in masked
    assert "w" + '"' not in masked


@pytest.mark.parametrize("before", ["", "u", "us", "user:"])
@pytest.mark.parametrize("after", ["", "\n", "!!"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_value_in_base64_is_hidden_wherever_it_stands_in_what_was_encoded(
    before: str, after: str, encode: object
) -> None:
    secret = "tok-\u00ff\u00fe-0123456789"
    written = encode(f"{before}{secret}{after}".encode()).decode()  # type: ignore[operator]
    masked = Mask([secret])(f"Authorization: Basic {written}")
    shown = masked.replace("Authorization: Basic ", "").replace("***", "").rstrip("=")
    assert "***" in masked
    # What is left is at most what was before and after it, and a character that both share.
    assert len(shown) <= len(encode(before.encode())) + len(encode(after.encode())) + 2  # type: ignore[operator]


def test_a_value_of_several_lines_is_hidden_line_by_line_without_its_white_space() -> None:
    mask = Mask([PEM])
    assert mask("    MIIabcdef+/= and MIIghijkl") == "    *** and ***"
    assert mask(json.dumps({"key": PEM})) == '{"key": "***"}'
    assert mask("    ") == "    "


def test_the_texts_in_a_value_that_is_json_are_hidden_one_by_one() -> None:
    mask = Mask([json.dumps({"id": "eu", "keys": [{"private": "abc\ndefghi"}], "port": 5432})])
    assert mask("defghi on eu:5432, and abc") == "*** on eu:5432, and ***"
    assert mask("{not json, but a value}") == "{not json, but a value}"
    assert Mask(["{not json"])("it is {not json") == "it is ***"


def test_values_that_overlap_leave_nothing_of_either() -> None:
    mask = Mask(["abcdef", "defghi", "abc"])
    assert mask("<abcdefghi>") == "<***>"
    assert mask("abc abcdef") == "*** ***"
    assert Mask(["aXa"])("aXaXa.") == "***."


def test_colours_in_the_middle_of_a_value_do_not_show_it() -> None:
    mask = Mask(["0123456789"])
    assert mask("it is \x1b[01;31m0123\x1b[0m456789\x1b[K.") == "it is ***."
    assert mask("\x1b[31mred\x1b[0m") == "\x1b[31mred\x1b[0m"


def test_what_is_too_short_to_be_a_secret_hides_nothing() -> None:
    assert Mask(["", " ", "ab", " a\n"])("a b ab c") == "a b ab c"
    assert Mask(["abc"])("abc") == "***"


@pytest.mark.parametrize("cut", range(1, 10))
def test_a_value_that_is_cut_by_the_end_of_a_piece_is_hidden_in_the_next_one(cut: int) -> None:
    value = "0123456789"
    mask = Mask([value, "other-value"])
    assert mask(f"{value[cut:]} and the rest", after=f"long text {value[:cut]}") == "*** and the rest"
    assert mask("and the rest", after="long text") == "and the rest"


def test_masking_is_quick() -> None:
    mask = Mask([f"token-{number}-{'x' * 30}" for number in range(5)])
    line = "2026-11-20 14:00:00 epoch 17 loss=0.4711 lr=1e-4 accuracy 0.913 some more words"
    started = time.process_time()
    for _ in range(10_000):
        mask(line)
    # A million lines in a small share of the time that their delivery takes.
    assert time.process_time() - started < 0.5
