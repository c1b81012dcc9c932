"""What personal and secret things look like: a pattern for each kind, a quick look before it, check digits after it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Final, Literal

Kind = Literal["email", "phone", "iban", "credit_card", "ip", "secret"]

KINDS: Final[tuple[Kind, ...]] = ("secret", "email", "iban", "credit_card", "ip", "phone")
"""All kinds, in the order in which they are looked for at the same place of a text."""

_COUNTRIES: Final = {
    15: "NO",
    16: "BE",
    18: "DK FI FO GL NL",
    19: "MK SI",
    20: "AT BA EE KZ LT LU XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "PT",
    26: "IS TR",
    27: "FR GR IT MC MR SM",
    28: "AZ BY CY DO GT HU LB PL",
    29: "BR EG PS QA UA",
    30: "JO KW MU",
    31: "MT SC",
    32: "LC",
}
_IBAN_LENGTHS: Final = {country: length for length, some in _COUNTRIES.items() for country in some.split()}
"""Lengths by country, of the IBAN registry (SWIFT, ISO 13616)."""

PATTERNS: Final[Mapping[Kind, str]] = {
    "secret": r"""
        -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.{0,10000}?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|\Z)
        | \b(?:sk|pk|rk)[-_](?:[A-Za-z]+[-_])*[A-Za-z0-9_-]{16,}
        | \b(?:wsk_|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|lsv2_|npm_|pypi-|hf_|AIza|ya29\.|SG\.|shpat_|dop_v1_)
          [A-Za-z0-9_.-]{10,}
        | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
        | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*
        | (?<=://)[^\s/:@]{0,64}:[^\s/@]{1,256}(?=@)
        | (?i:(?<=bearer[ ])|(?<=basic[ ]))[A-Za-z0-9._~+/-]{8,}=*
        | (?i:(?:password|passwd|pwd|secret|api[_-]?key|apikey|access[_-]?token|auth[_-]?token|client[_-]?secret)
          ["']?\s{0,4}[:=]\s{0,4}["']?)(?P<assigned>[^\s"',;&}]{6,256})
    """,
    "email": r"[A-Za-z0-9._%+'-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b",
    "iban": r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,4})?\b",
    "credit_card": r"(?<![\d.-])\d(?:[ -]?\d){11,18}(?![\d]|[.-]\d)",
    "ip": r"""
        (?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d]|\.\d)
        | (?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])
    """,
    "phone": r"""
        (?<![\w.+-])(?:\+|00)[1-9]\d{0,2}[ ./-]?(?:\(0?\d{1,5}\)[ ./-]?)?\d{1,5}(?:[ ./-]?\d{2,5}){1,5}(?![\w]|[.-]\d)
        | (?<![\w.+-])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?![\w]|[.-]\d)
        | (?<![\w.+-])0\d{2,5}[ /-]\d{3,9}(?:[ -]\d{2,5}){0,2}(?![\w]|[.-]\d)
    """,
}

_SECRET_WORDS: Final = (
    *("private key", "sk-", "sk_", "pk-", "pk_", "rk-", "rk_", "wsk_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    *("github_pat_", "glpat-", "xox", "lsv2_", "npm_", "pypi-", "hf_", "aiza", "ya29", "sg.", "shpat_", "dop_v1_"),
    *("akia", "asia", "eyj", "://", "bearer ", "basic ", "passw", "pwd", "secret", "api", "token"),
)
_IBAN: Final = re.compile(r"[A-Z]{2}\d\d")
_CARD: Final = re.compile(r"\d[\d -]{10}")
_IP: Final = re.compile(r"\d\.\d{1,3}\.\d|:[0-9A-Fa-f]{0,4}:")
_PHONE: Final = re.compile(r"\d[ ./)-]{1,2}\d|\+\d|00[1-9]\d{5}")
_DIGIT: Final = re.compile(r"\d")


def worth_looking(text: str, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
    """The kinds of which a text may have something: what its patterns begin with is in it."""
    has_digit = _DIGIT.search(text) is not None
    return tuple(kind for kind in kinds if (has_digit or kind not in _OF_DIGITS) and _HINTS[kind](text))


def _may_have_secret(text: str) -> bool:
    lowered = text.lower()
    return any(word in lowered for word in _SECRET_WORDS)


_OF_DIGITS: Final = frozenset[Kind](("iban", "credit_card", "ip", "phone"))
_HINTS: Final[Mapping[Kind, Callable[[str], object]]] = {
    "secret": _may_have_secret,
    "email": lambda text: "@" in text,
    "iban": _IBAN.search,
    "credit_card": _CARD.search,
    "ip": _IP.search,
    "phone": _PHONE.search,
}


def passes_luhn(text: str) -> bool:
    """Whether digits (among spaces and hyphens) are 12 to 19 with the check digit of a payment card (ISO 7812)."""
    digits = [int(one) for one in text if one.isdigit()]
    if not 12 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = (2 * one - 9 * (one > 4) for one in digits[-2::-2])
    return (sum(digits[::-2]) + sum(doubled)) % 10 == 0


def passes_iban(text: str) -> bool:
    """Whether a text is an IBAN: its country's length, and check digits by ISO 7064 mod 97-10."""
    plain = text.replace(" ", "")
    if _IBAN_LENGTHS.get(plain[:2]) != len(plain):
        return False
    return int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return any(one.isdigit() for one in text)


def _is_phone(text: str) -> bool:
    return 7 <= sum(one.isdigit() for one in text) <= 15


def _always(_text: str) -> bool:
    return True


VALID: Final[Mapping[str, Callable[[str], bool]]] = {
    **dict.fromkeys(KINDS, _always),
    "iban": passes_iban,
    "credit_card": passes_luhn,
    "ip": _is_ip,
    "phone": _is_phone,
}
"""What else has to hold of what a pattern found."""

COMPILED: Final = {kind: re.compile(text, re.VERBOSE | re.DOTALL) for kind, text in PATTERNS.items()}
