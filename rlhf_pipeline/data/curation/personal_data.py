"""Personal data in a text: patterns that propose, and checks that decide, with no model.

    EMAIL   a local part, @ and a domain with a top level of letters, but not those reserved for examples (RFC 2606)
    IBAN    country, length and check digits (python-stdnum)
    CARD    a known issuer's prefix and length, and the Luhn digit
    SSN     a US social security number that can have been issued (python-stdnum)
    IP      a public address, IPv4 or IPv6; not after a word such as version or section
    PHONE   a number that is in use in a country's plan (phonenumbers, Google's libphonenumber)

Left out: names, dates of birth and street addresses, which need a model of the language, and columns beside the texts.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from rlhf_pipeline.errors import ConfigError


class Finding(NamedTuple):
    """A stretch of a text and what it is."""

    kind: str
    start: int
    end: int


_AT_DOMAIN = re.compile(r"(?<=[\w.+%-])@(?:[\w-]+\.)+[^\W\d_]{2,}(?![\w@])")
_LOCAL = re.compile(r"[\w.+%-]+\Z")
_LONGEST_LOCAL = 64
"""Characters of a local part (RFC 5321); it is looked for backwards from its @, so that no long word is read twice."""
_RESERVED = re.compile(r"@(?:.*\.)?(?:example\.(?:com|net|org)|[\w-]+\.(?:example|invalid|test|localhost))$", re.I)
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-]|\.\d)")
_ISSUER = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3[068]\d{12}|6(?:011|5\d\d)\d{12}"
)
_SSN = re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")
_IPV4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:)[0-9A-Fa-f:]{6,39}(?![\w:.])")
_VERSION = re.compile(r"(?:\bv|\bversions?|\brelease|\bbuild|\bsections?|§)[\s:=]*$", re.I)
_MAYBE_PHONE = re.compile(r"\d(?:[^\w\n]{0,3}\d){6}")
"""Seven digits close together: the least that libphonenumber, which is slow, has to look at."""


class PersonalData:
    """Finds personal data; `regions`: countries (US, DE, ...) whose numbers are known without a + and country code."""

    def __init__(self, regions: Sequence[str] = ("US",)) -> None:
        """Raise ConfigError on a region that libphonenumber does not know."""
        from phonenumbers import SUPPORTED_REGIONS

        for region in regions:
            if region not in SUPPORTED_REGIONS:
                raise ConfigError(f"--phone_regions: `{region}` is no country code; expected such as US, GB, DE")
        self._regions: list[str | None] = list(regions) or [None]

    def find(self, text: str) -> list[Finding]:
        """Give the findings in order; where two overlap, the one whose check is stricter."""
        taken: list[Finding] = []
        for finding in self._proposed(text):
            at = bisect(taken, finding.start, key=lambda other: other.start)
            around = taken[max(0, at - 1) : at + 1]
            if not any(finding.start < other.end and other.start < finding.end for other in around):
                taken.insert(at, finding)
        return taken

    def redacted(self, text: str, counts: Counter[str]) -> str:
        """Give the text with `[EMAIL]` and the like in place of each finding, and count them by kind."""
        pieces, at = list[str](), 0
        for kind, start, end in self.find(text):
            pieces += (text[at:start], f"[{kind}]")
            at = end
            counts[kind] += 1
        return "".join([*pieces, text[at:]])

    def _proposed(self, text: str) -> Iterator[Finding]:
        if "@" in text:
            yield from _emails(text)
        if not any(letter.isdigit() for letter in text) and "::" not in text:
            return
        yield from _checked("IBAN", _IBAN, text, _is_iban)
        yield from _checked("CARD", _CARD, text, _is_card)
        yield from _checked("SSN", _SSN, text, _is_ssn)
        for pattern in (_IPV4, _IPV6):
            found = _checked("IP", pattern, text, _is_public)
            yield from (one for one in found if not _VERSION.search(text[max(0, one.start - 12) : one.start]))
        if _MAYBE_PHONE.search(text):
            yield from self._phones(text)

    def _phones(self, text: str) -> Iterator[Finding]:
        from phonenumbers import Leniency, PhoneNumberMatcher

        for region in self._regions:
            for match in PhoneNumberMatcher(text, region, leniency=Leniency.STRICT_GROUPING):
                if _looks_dialled(match.raw_string):
                    yield Finding("PHONE", match.start, match.end)


def _emails(text: str) -> Iterator[Finding]:
    for at in _AT_DOMAIN.finditer(text):
        start = max(0, at.start() - _LONGEST_LOCAL)
        local = _LOCAL.search(text[start : at.start()])
        if local and not _RESERVED.search(at.group()):
            yield Finding("EMAIL", start + local.start(), at.end())


def _checked(kind: str, pattern: re.Pattern[str], text: str, check: Callable[[str], bool]) -> Iterator[Finding]:
    return (Finding(kind, *found.span()) for found in pattern.finditer(text) if check(found.group()))


def _is_iban(text: str) -> bool:
    from stdnum import iban

    return bool(iban.is_valid(text))


def _is_card(text: str) -> bool:
    from stdnum import luhn

    digits = re.sub(r"\D", "", text)
    return _ISSUER.fullmatch(digits) is not None and bool(luhn.is_valid(digits))


def _is_ssn(text: str) -> bool:
    from stdnum.us import ssn

    return bool(ssn.is_valid(text))


def _is_public(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _looks_dialled(text: str) -> bool:
    """Ten bare digits may be any number; people write a phone number with +, brackets or groups."""
    return not text.isdigit()
