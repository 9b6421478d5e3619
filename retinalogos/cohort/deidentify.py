"""Pseudonyms of patients and removal of identifiers from free text."""

import hashlib
import hmac
import os
import re
import warnings

KEY_VARIABLE = "RETINALOGOS_PSEUDONYM_KEY"
# Public, hence no protection: it makes runs on open data sets reproducible everywhere.
PUBLIC_KEY = "retinalogos-open-data"

# Ages above 89 are themselves identifiers under the HIPAA safe harbour, 45 CFR 164.514(b)(2)(i)(C).
OLDEST_AGE = 90.0

_MONTHS = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, flags), mark)
    for pattern, flags, mark in (
        (r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+", re.I, "[e-mail]"),
        (r"\b(?:https?://|www\.)\S+", re.I, "[address]"),
        (r"\b\d{4}[-/.]\d{1,2}[-/.]\d{1,2}\b", 0, "[date]"),
        (r"\b\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})\b", 0, "[date]"),
        (rf"\b\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTHS},?\s+\d{{2,4}}\b", re.I, "[date]"),
        (rf"\b{_MONTHS}\s+\d{{1,2}}(?:st|nd|rd|th)?,?\s+\d{{4}}\b", re.I, "[date]"),
        (r"(?<![\w.])\+?\(?\d{2,4}\)?(?:[ ./-]\(?\d{2,4}\)?){2,}(?![\w])", 0, "[phone]"),
        (r"(?<![\w.])\+\d{7,15}\b", 0, "[phone]"),
        (r"\b(?=\w*\d{5})\w{6,}\b|\b\d{5,}\b", 0, "[number]"),
        (
            r"\b((?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Doctor|Sir|Herr|Frau)\b\.?)"
            r"(?:\s+(?:[A-Z]\.|[A-Z][\w'’-]+))+",
            0,
            r"\1 [name]",
        ),
        (r"\b((?:patient(?:'s)? name|name|surname|first name)\s*[:=]\s*)[^,;.\n]+", re.I, r"\1[name]"),
    )
)

# What every rule needs at least: most texts have none of it and are not searched further.
_SUSPICIOUS = re.compile(
    r"\d\d|@|://|www\.|name|\b(?:mr|mrs|ms|miss|mx|dr|prof|professor|doctor|sir|herr|frau)\b", re.I
)


def pseudonym(source: str, identifier: str, key: bytes) -> str:
    """Keyed hash (HMAC-SHA256, 64 bits) of a patient's identifier: the same person, the same pseudonym.

    Without the key it can neither be undone nor be found by trying all identifiers.
    """
    return hmac.new(key, f"{source}:{identifier}".encode(), hashlib.sha256).hexdigest()[:16]


def pseudonym_key(open_source: bool) -> bytes:
    """The key from the environment variable RETINALOGOS_PSEUDONYM_KEY, else the project's public one.

    Args:
        open_source: the data set is public (or drawn), so that the public key gives nothing away; for any other a
            warning is issued.
    """
    key = os.environ.get(KEY_VARIABLE)
    if key:
        return key.encode()
    if not open_source:
        warnings.warn(
            f"{KEY_VARIABLE} is not set: patient identifiers are hashed with the project's public key, so anyone can "
            "test a guess; set it to a secret of your own before sharing this cohort",
            stacklevel=2,
        )
    return PUBLIC_KEY.encode()


def deidentify_text(text: str) -> str:
    """Replaces dates, phone numbers, e-mails, addresses, long numbers and names after titles by a mark.

    Names without a title cannot be told from eponyms (Weiss ring, Drusen of Gass) by rule, and stay.
    """
    if not _SUSPICIOUS.search(text):
        return text
    for pattern, mark in _RULES:
        text = pattern.sub(mark, text)
    return text
