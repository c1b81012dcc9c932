"""Texts as a model reads them: what is hidden, disguised or encoded in a text is brought to light for the rules.

`readings(text)` gives the plain reading first, then others that are worth a look: a text with its digits read as
letters, with its spaced-out letters put together, backwards, and what base64, hex, percent signs or rot13 stand for.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

LONGEST: Final = 200_000
"""Characters of a text that are looked at; of a longer one the first and the last half as many."""

_TAGS = range(0xE0000, 0xE0080)
_INVISIBLE: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2060-\u2064\u206a-\u206f\ufeff]"
)
_BIDI: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
_BACKWARDS: Final = re.compile("\u202e([^\u202c\n]{8,})")
_TAGGED: Final = re.compile("(?<!\U0001f3f4)[\U000e0020-\U000e007e]{4,}")
_FLAG: Final = re.compile("\U0001f3f4[\U000e0020-\U000e007f]+")
_LOOKALIKES: Final = str.maketrans(
    "аеорсухіјѕԁһкмнтвАВЕКМНОРСТХІЅЈαεορυικντχΑΒΕΖΗΙΚΜΝΟΡΤΥΧıøłđ",
    "aeopcyxijsdhkmhtbABEKMHOPCTXISJaeopuikvtxABEZHIKMNOPTYXiold",
)
_LEET: Final = str.maketrans("013457@$", "oieastas")
_LEET_WORD: Final = re.compile(r"\b(?=[a-z]*[013457@$])(?=[013457@$]*[a-z])[a-z013457@$]{3,}\b")
_SPACED: Final = re.compile(r"(?:\b\w[ .\-_*]{1,3}){6,}\w\b")
_BASE64: Final = re.compile(r"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_-]{24,20000}={0,2}(?![A-Za-z0-9+/_=-])")
_HEX: Final = re.compile(r"(?<![0-9A-Za-z])(?:[0-9a-fA-F]{2}[ ]?){16,10000}(?![0-9A-Za-z])")
_PERCENT: Final = re.compile(r"(?:%[0-9A-Fa-f]{2}){8,}")
_ROT13: Final = re.compile(r"\b(?:vtaber|qvfertneq|sbetrg|cebzcg|vafgehpgvba|flfgrz)", re.IGNORECASE)
_SPACES: Final = re.compile(r"[^\S\n]+")
_MOST_DECODED = 50


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a text. `how`: plain, hidden, leet, spaced, backwards, base64, hex, percent, rot13."""

    how: str
    text: str

    @property
    def is_disguised(self) -> bool:
        """Whether somebody took pains that people do not see it."""
        return self.how != "plain"


def readings(text: str) -> Iterator[Reading]:
    """How a text can be read, the plain way first; all of them in lower case and with single spaces."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]}\n{text[-LONGEST // 2 :]}"
    plain = plainly(text)
    yield Reading("plain", plain)
    if not text.isascii():
        yield from _hidden(text)
    if (leet := _LEET_WORD.sub(lambda word: word.group().translate(_LEET), plain)) != plain:
        yield Reading("leet", leet)
    if _SPACED.search(plain):
        yield Reading("spaced", plainly(_SPACED.sub(lambda found: _joined(found.group()), text)))
    yield from _encoded(text)


def plainly(text: str) -> str:
    """A text in lower case, in its letters' plainest forms, without accents and without what nobody sees."""
    if not text.isascii():
        text = _INVISIBLE.sub("", _BIDI.sub("", unicodedata.normalize("NFKD", text)))
        text = "".join(one for one in text if not unicodedata.combining(one) and ord(one) not in _TAGS)
        text = text.translate(_LOOKALIKES)
    return _SPACES.sub(" ", text.lower())


def _hidden(text: str) -> Iterator[Reading]:
    tagged = "".join(chr(ord(one) - 0xE0000) for found in _TAGGED.findall(_FLAG.sub("", text)) for one in found)
    if tagged:
        yield Reading("hidden", plainly(tagged))
    for found in _BACKWARDS.findall(text):
        yield Reading("backwards", plainly(found[::-1]))


def _encoded(text: str) -> Iterator[Reading]:
    for number, found in enumerate(_BASE64.finditer(text)):
        if number >= _MOST_DECODED:
            break
        if (decoded := _from_base64(found.group())) is not None:
            yield Reading("base64", plainly(decoded))
    for found in _HEX.findall(text)[:_MOST_DECODED]:
        if (decoded := _readable(bytes.fromhex(found))) is not None:
            yield Reading("hex", plainly(decoded))
    if _PERCENT.search(text):
        yield Reading("percent", plainly(unquote(text)))
    if _ROT13.search(text):
        yield Reading("rot13", plainly(codecs.decode(text, "rot13")))


def _from_base64(text: str) -> str | None:
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return _readable(base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True))
    except (binascii.Error, ValueError):
        return None


def _readable(data: bytes) -> str | None:
    """Text in bytes; None where they are none."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    printable = sum(one.isprintable() or one.isspace() for one in text)
    return text if text and printable >= 0.95 * len(text) else None


def _joined(spaced: str) -> str:
    """`i g n o r e   a l l`: single separators go, larger gaps are between words."""
    words = re.split(r"[ .\-_*]{2,}", spaced)
    return " ".join(re.sub(r"[ .\-_*]", "", word) for word in words)
