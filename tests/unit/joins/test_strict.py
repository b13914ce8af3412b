"""The one way in which JSON and base64url from outside are read."""

import json

import pytest

from machinebot.joins.strict import MAX_DEPTH, base64url, json_object


def nested(levels: int) -> bytes:
    """An object with so many levels, itself counted."""
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize(
    ("data", "value"),
    [
        pytest.param(b"{}", {}, id="empty"),
        pytest.param(b' {"a" : [1, 2.5, -3e2, true, null, "x"]}\n', {"a": [1, 2.5, -300.0, True, None, "x"]}, id="every type"),
        pytest.param('{"ä":"€😀"}'.encode(), {"ä": "€😀"}, id="UTF-8"),
        pytest.param(b'{"a":"\\ud83d\\ude00\\u00e4"}', {"a": "😀ä"}, id="both halves of a character"),
        pytest.param(b'{"a":{"b":1},"c":{"b":2}}', {"a": {"b": 1}, "c": {"b": 2}}, id="equal keys in two objects"),
        pytest.param(b'{"a":1,"A":2}', {"a": 1, "A": 2}, id="keys of another case"),
        pytest.param(b'{"a":1e308}', {"a": 1e308}, id="a large number"),
        pytest.param(b'{"a":' + b"9" * 400 + b"}", {"a": int("9" * 400)}, id="a large whole number"),
        pytest.param(nested(MAX_DEPTH), json.loads(nested(MAX_DEPTH)), id="as deep as may be"),
    ],
)
def test_json_that_is_read(data: bytes, value: object) -> None:
    assert json_object(data) == value


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"1", id="number"),
        pytest.param(b"null", id="null"),
        pytest.param(b'"secret"', id="text"),
        pytest.param(b"{", id="broken off"),
        pytest.param(b"{}x", id="more behind it"),
        pytest.param(b"{}{}", id="two objects"),
        pytest.param(b'{"secret":1,"secret":1}', id="key twice"),
        pytest.param(b'{"a":1,"\\u0061":1}', id="key twice, once escaped"),
        pytest.param(b'{"x":[{"a":1,"a":2}]}', id="nested key twice"),
        pytest.param(b'{"a":1,}', id="comma behind"),
        pytest.param(b"{'a':1}", id="single quotes"),
        pytest.param(b'{"a":01}', id="zero before"),
        pytest.param(b'{"a":.5}', id="no zero before"),
        pytest.param(b'{"a":+1}', id="plus"),
        pytest.param(b'{"a":0x1}', id="hexadecimal"),
        pytest.param(b'{"a":NaN}', id="NaN"),
        pytest.param(b'{"a":Infinity}', id="Infinity"),
        pytest.param(b'{"a":-Infinity}', id="minus Infinity"),
        pytest.param(b'{"a":1e999}', id="becomes infinite"),
        pytest.param(b'{"a":-1e999}', id="becomes minus infinite"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="thousands of digits"),
        pytest.param(b'{"a":"\n"}', id="line break in a text"),
        pytest.param(b'{"a":"\\x41"}', id="escape that JSON has not"),
        pytest.param(b'{"a":"\xff"}', id="no UTF-8"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', id="half a character in UTF-8"),
        pytest.param(b'{"a":"\\ud800"}', id="half a character"),
        pytest.param(b'{"a":["\\udc00\\ud800"]}', id="halves in the wrong order"),
        pytest.param(b'{"\\ud800":1}', id="half a character in a key"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
        pytest.param("{}".encode("utf-16"), id="UTF-16"),
        pytest.param(nested(MAX_DEPTH + 1), id="a level too deep"),
        pytest.param(b'{"a":' * 100_000, id="very deep"),
    ],
)
def test_json_that_is_not(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^no JSON object with unique keys$") as caught:
        json_object(data)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", b""),
        ("AA", b"\x00"),
        ("AAA", b"\x00\x00"),
        ("AAAA", b"\x00\x00\x00"),
        ("_-8", b"\xff\xef"),
        ("eyJhIjoxfQ", b'{"a":1}'),
    ],
)
def test_base64url_that_is_read(text: str, data: bytes) -> None:
    assert base64url(text) == data


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("A", id="one letter"),
        pytest.param("AAAAA", id="five letters"),
        pytest.param("AB", id="unused bits set"),
        pytest.param("AAB", id="fewer unused bits set"),
        pytest.param("AA==", id="padding"),
        pytest.param("AAA=", id="less padding"),
        pytest.param("AAAA=", id="padding where none is needed"),
        pytest.param("=", id="padding alone"),
        pytest.param("/+8", id="the other alphabet"),
        pytest.param("AA AA", id="blank"),
        pytest.param("AAAA\n", id="line break"),
        pytest.param("AA.AA", id="dot"),
        pytest.param("ÄÄÄÄ", id="no ASCII"),
        pytest.param("\ud800AAA", id="half a character"),
        pytest.param("AA\x00A", id="zero byte"),
    ],
)
def test_base64url_that_is_not(text: str) -> None:
    with pytest.raises(ValueError, match=r"^no base64url$") as caught:
        base64url(text)
    assert caught.value.__cause__ is None
