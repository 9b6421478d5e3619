"""Pseudonyms of patients and removal of identifiers from free text.

Identifiers are found by rule: those with a form of their own (dates, numbers, addresses) by that form; names by being
capitalised and no words of reports (:mod:`retinalogos.cohort.report_words`). A rule that is in doubt removes: a lost
connective costs nothing, a name in a caption does. What that finds and loses is measured by
``python -m benchmarks.deidentification``.
"""

import hashlib
import hmac
import os
import re
import warnings
from functools import lru_cache

from retinalogos.cohort.report_words import (
    ABBREVIATIONS,
    ALSO_NAMES,
    CALLED_AFTER,
    CUES,
    EPONYMIC,
    EPONYMS,
    GIVEN,
    PARTICLES,
    TITLES,
    WORDS,
)

KEY_VARIABLE = "RETINALOGOS_PSEUDONYM_KEY"
# Public, hence no protection: it makes runs on open data sets reproducible everywhere.
PUBLIC_KEY = "retinalogos-open-data"

# Ages above 89 are themselves identifiers under the HIPAA safe harbour, 45 CFR 164.514(b)(2)(i)(C).
OLDEST_AGE = 90.0

# Months as reports in European languages abbreviate and write them.
_MONTH = (
    r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|january|february|march|april|june|july|august|sept(?:ember)?"
    r"|october|november|december|januar|jänner|februar|märz|mai|juni|juli|oktober|dezember|janvier|févr?(?:ier)?|mars"
    r"|avr(?:il)?|juin|juillet|août|septembre|octobre|novembre|déc(?:embre)?|enero|febrero|marzo|abril|mayo|junio|julio"
    r"|agosto|septiembre|octubre|noviembre|diciembre|gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre"
    r"|dicembre|januari|februari|maart|mei|augustus|janeiro|fevereiro|março|maio|junho|julho|setembro|outubro|novembro"
    r"|dezembro)\b\.?"
)
_YEAR = r"(?:['’]?\d{2}|(?:19|20)\d{2})"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th|er|\.)?"
# The same in words: "twenty-first", "two thousand and nineteen", "nineteen ninety-five".
_DAY_IN_WORDS = (
    r"(?:(?:twenty[- ]|thirty[- ])?(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth)|tenth|eleventh"
    r"|twelfth|(?:thir|four|fif|six|seven|eigh|nine)teenth|twentieth|thirtieth)"
)
_ONES = r"(?:one|two|three|four|five|six|seven|eight|nine)"
_TENS = (
    rf"(?:ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twenty|thirty|forty|fifty|sixty|seventy|eighty"
    rf"|ninety)(?:[- ]{_ONES})?)"
)
_YEAR_IN_WORDS = (
    rf"(?:two thousand(?:(?: and)? (?:{_TENS}|{_ONES}))?|(?:nineteen|twenty)[- ](?:hundred|oh {_ONES}|{_TENS}))"
)
# Above 89: the ages that identify.
_OLD_IN_WORDS = rf"(?:ninety(?:[- ]{_ONES})?|(?:a|one) hundred(?: and {_ONES})?)"
# A capitalised word, with the particles that names have inside.
_CAP = r"[A-ZÀ-ÖØ-ÞĀ-Ž][\w'’-]*"
_PROPER = rf"{_CAP}(?:\s+(?:{_CAP}|de|del|della|di|da|do|dos|la|le|les|des|du|den|der|von|van|y|und|et|i))*"
_POSTCODE = (
    r"(?:[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2}|(?:[A-Z]{1,2}[- ])?\d{3,6}(?:-\d{3,4})?(?:\s?[A-Z]{2}\b)?"
    r"|[A-Z]\d[A-Z]\s?\d[A-Z]\d)"
)
_TOWN = r"[A-ZÀ-ÖØ-ÞĀ-Ž][^\W\d_]*(?:-[^\W\d_]+)*(?!\w)"
# What follows a street: towns, regions, codes.
_TAIL = (
    rf"(?:,?\s+{_POSTCODE}(?!\w|\.\d))?(?:(?:,\s*|\s+){_TOWN}(?:\s+{_TOWN})*(?:,?\s+{_POSTCODE}(?!\w"
    rf"|\.\d))?){{0,3}}(?:,\s*{_POSTCODE}(?!\w|\.\d))?"
)
_NAMED_STREET = (
    r"(?i:street|st|road|rd|avenue|ave|lane|ln|drive|dr|court|ct|close|crescent|way|square|sq|place"
    r"|pl|terrace|boulevard|blvd|gardens|grove|hill|mews|row|parkway|highway|hwy|walk|park)"
)
_STREET_FIRST = (
    r"(?:Via|Viale|Vicolo|Piazza|Corso|Calle|Carrer|Avenida|Avda\.?|Av\.|Plaza|Paseo|Rua|Praça|Travessa"
    r"|ul\.|ulica|Rue|rue|avenue|boulevard|place|chemin|impasse|allée|quai|Jalan|Jln\.?)"
)
_STREET_LAST = (
    r"(?:straße|strasse|str\.|weg|platz|allee|gasse|damm|ufer|straat|laan|plein|gracht|kade|singel|gatan"
    r"|gata|vägen|veien|vej|katu|utca)"
)

# Measures keep their numbers.
_UNIT = (
    r"(?!\s*(?:mm\s?hg|[µμ]m|um\b|microns?\b|mm\b|cm\b|dpt|dioptr|letters|%|px|pixels?|nm\b|h\b|hours?"
    r"|days?|weeks?|months?|years?|disc|x\s*\d))"
)
_NUMBER_WORD = r"(?:no|nr|num|number|numero|número|nummer|#|id|code|№|n[°º])"
# Words that announce a number that identifies, and may be followed by anything with two digits …
_RECORD = (
    r"(?:MRN|NHS|SSN|CHI|UHID|UMRN|URN|UR|DNI|NIF|NIE|CPR|BSN|PESEL|NRIC|HKID|IPP|NIR|AVS|AHV|Aadhaar"
    r"|CURP|KVNR|ID|PID|accession|passport|licen[cs]e|insurance|policy|medicare|account|barcode|chart"
    r"|file|Fallnr|Pat\.?-?Nr|Patientennr|Aktenzeichen|Vers\.?-?Nr)"
)
# … and those that do so only with "number" behind them or three digits.
_PERHAPS_RECORD = (
    r"(?:hospital|hosp|record|patient|pat|case|folder|episode|visit|order|study|sample|acc|fall|reference|ref|unit)"
)
_VALUE = r"(?:\d\d(?: \d\d){2,}\b|(?=[\w/-]*\d[\w/-]*\d)[A-Za-z0-9][\w/-]*(?:[ .](?=\d{3,})\d{3,}){0,3})"

_KEYWORD_LAST = (
    r"(?:Hospitals?|Infirmary|Clinics?|Institutes?|University|College|Medical Cent(?:er|re)|Health Cent(?:er"
    r"|re)|(?:Eye|Ophthalmic|Ophthalmology|Retina|Vision|Diabetes|Surgical|Care) (?:Hospital|Cent(?:er"
    r"|re)|Institute|Clinic|Foundation|Associates|Unit|Department)|Eye and Ear|(?:NHS )?(?:Foundation )?Trust"
    r"|Opticians|Optometrists|Opticiens|Optik|Medical Practice|Practice|Surgery|Health System|Healthcare"
    r"|Hospice|Foundation|Ltd|GmbH|Klinikum|Klinik|Augenklinik|Krankenhaus|Spital|Ziekenhuis|Sjukhus"
    r"|Sykehus|Sygehus|Sairaala|Szpital|Nemocnice|Hastanesi|Medical College|School of Medicine|UMC)"
)
_KEYWORD_FIRST = (
    r"(?:H[oô]pital|CHU|CHR|CHRU|Clinique|Cl[ií]nica|Centre Hospitalier|Hospital|Ospedale|Policlinico"
    r"|Poliklinik|Universitätsklinikum|Uniklinikum|Uniklinik|Universitätsspital|Universitäts-Augenklinik"
    r"|Augenklinik|Augenzentrum|Augenarztpraxis|Praxis|Klinikum|Klinik|Krankenhaus|Charité|Spital|Kantonsspital"
    r"|Inselspital|Ziekenhuis|Szpital|Instituto|Institut|Istituto|Università|Universidad|Université"
    r"|University|College|Centro|AIIMS|UMC)"
)
# A place that says of itself that it is a name, though all its words are common ones.
_NAMES_A_PLACE = re.compile(
    r"\b(?:Royal|General|National|University|St\.?|Saint|City|County|Memorial|Regional|District|Central"
    r"|Queen|King|Prince|Princess|Trust|Park|School|North\w*|South\w*|East\w*|West\w*|Medical College"
    r"|Ltd|GmbH|Opticians|Surgery|Practice|Foundation|Infirmary|Associates|and Ear)\b"
)

_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, flags), mark)
    for pattern, flags, mark in (
        (r"\b[\w.+'’-]+\s?(?:@|\(at\)|\[at\])\s?[\w-]+(?:\.[\w-]+)+", re.I, "[e-mail]"),
        (r"\b(?:https?://|www\.)\S+", re.I, "[address]"),
        (r"\b(?:\d{1,3}\.){3}\d{1,3}\b", 0, "[address]"),
        (r"\b[\w-]+\.(?:jpe?g|png|tiff?|bmp|dcm|e2e|pdf)\b", re.I, "[file]"),  # is often called after the patient
        # Dates.
        (r"\b\d{4}\s?[-/.]\s?\d{1,2}\s?[-/.]\s?\d{1,2}(?!\d)(?:T[\d:.]+Z?)?", 0, "[date]"),
        (
            r"\b(?:19|20)\d{2}\s?年\s?\d{1,2}\s?月(?:\s?\d{1,2}\s?日)?|\b\d{4}년\s?\d{1,2}월(?:\s?\d{1,2}일)?",
            0,
            "[date]",
        ),
        (r"\b[HRS]\d{1,2}\.\d{1,2}\.\d{1,2}\b", 0, "[date]"),  # years of Japanese eras
        (rf"(?<![\d/.])(?:\d{{1,2}}[-/.]\s?){{2}}(?:\d{{4}}|['’]?\d{{2}})\b(?![/]\d){_UNIT}", 0, "[date]"),
        (r"\b\d{1,2}(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)\d{2,4}\b", re.I, "[date]"),
        (rf"\b{_DAY}\s*(?:of\s+|de\s+)?[-/. ]?\s*{_MONTH},?\s*(?:de\s+|[-/ ]\s*)?{_YEAR}\b", re.I, "[date]"),
        (rf"\b{_MONTH}\s*[-/ ]?\s*{_DAY}\s*[,-/ ]\s*{_YEAR}\b", re.I, "[date]"),
        (rf"\b\d{{4}}\s?[-/ ]\s?{_MONTH}\s?[-/ ]\s?{_DAY}\b", re.I, "[date]"),
        # "9. May" ends a sentence and begins another; with the dot of German it would be "9. Mai".
        (
            rf"\b(?!\d+\.\s+May\b){_DAY}\s+(?:of\s+|de\s+)?(?!(?-i:may|mar|mars)\s){_MONTH}(?![\w-])",
            re.I,
            "[date]",
        ),
        (rf"\b(?!(?-i:may)\s){_MONTH}\s+{_DAY}\b(?![.,]?\d)(?!\s*(?:mm|%|[µμ]m|x))", re.I, "[date]"),
        (rf"\b{_MONTH}\s*(?:de\s+|of\s+|,)?\s*[-/]?\s*(?:['’]\d{{2}}|(?:19|20)\d{{2}})\b", re.I, "[date]"),
        (r"(?<![\d/.])(?:0?[1-9]|1[0-2])[/.-](?:19|20)\d{2}\b(?!\s*(?:x|[µμ]m))", 0, "[date]"),
        (r"(?<![\d/.-])(?:19|20)\d{2}[/-](?:0[1-9]|1[0-2])\b", 0, "[date]"),
        (
            rf"\b{_DAY_IN_WORDS}\s+(?:of\s+)?(?!(?-i:may|mar|mars)\s+(?!of|{_YEAR_IN_WORDS}|{_YEAR}))"
            rf"{_MONTH}(?:,?\s+(?:{_YEAR}|{_YEAR_IN_WORDS}))?(?![\w-])",
            re.I,
            "[date]",
        ),
        (
            rf"\b(?!(?-i:may|mar|mars)\s){_MONTH}\s+(?:the\s+)?{_DAY_IN_WORDS}(?:,?\s+(?:{_YEAR}|{_YEAR_IN_WORDS}))?\b",
            re.I,
            "[date]",
        ),
        (rf"\b(?:{_DAY}\s+)?{_MONTH},?\s+{_YEAR_IN_WORDS}\b", re.I, "[date]"),
        # Years of birth with the word; other years alone do not identify (45 CFR 164.514(b)(2)(i)(C)).
        (r"\b((?:born|birth|dob|d\.o\.b\.|yob|geb\.?)\b[^.;\d\[]{0,12})(?:19|20)\d{2}\b", re.I, r"\1[date]"),
        (r"\b((?:dob|d\.o\.b\.|date of birth|born(?: on)?|geb\.?)\s*[:=]?\s*)\d[\d /.-]{4,9}\d\b", re.I, r"\1[date]"),
        # Ages above 89 are identifiers, see OLDEST_AGE.
        (r"\b(?:9\d|1[0-2]\d)(?=[- ]?(?:years?|yrs?|y)[- /.]?(?:old|of age|o)\b)", re.I, "[age]"),
        (r"\b(aged?:?\s+)(?:9\d|1[0-2]\d)\b(?!\s*[%µμ])", re.I, r"\1[age]"),
        (rf"\b{_OLD_IN_WORDS}(?=[- ]years?[- ](?:old|of age)\b)", re.I, "[age]"),
        (rf"\b(aged )(?:{_OLD_IN_WORDS})\b", re.I, r"\1[age]"),
        (r"\b(?:9\d|1[0-2]\d)(?=[MF]\b)", 0, "[age]"),
        # Record numbers by what announces them.
        (rf"\b({_RECORD}\b\.?[- ]?{_NUMBER_WORD}?\b\.?\s*[:=#]?\s*){_VALUE}", re.I, r"\1[number]"),
        (
            rf"\b({_PERHAPS_RECORD}\b\.?[- ]?{_NUMBER_WORD}\b\.?\s*[:=#]?\s*"
            rf"|{_PERHAPS_RECORD}\s*[#:]\s*){_VALUE}{_UNIT}",
            re.I,
            r"\1[number]",
        ),
        (
            rf"\b((?:patient|case|record|hosp(?:ital)?)\s+)(?=[A-Z]{{0,4}}-?\d{{3}})[A-Z]{{0,4}}-?\d[\d/-]*\b{_UNIT}",
            re.I,
            r"\1[number]",
        ),
        (rf"#\s?{_VALUE}", 0, "[number]"),
        # Phones.
        (
            r"\b((?:tel|telephone|phone|ph|mobile|mob|cell|fax|ext|extension|bleep|pager|handy|call(?:ed)?(?: on)?"
            r"|ring)\b\.?\s*(?:no\.?"
            r"|number)?\s*:?\s*)[+(\d][\d ()./-]{2,}\d\b",
            re.I,
            r"\1[phone]",
        ),
        (r"(?<![\w.])\+\s?(?!\d\.)[1-9][\d ()./-]{6,}\d\b", 0, "[phone]"),
        (rf"(?<![\w./])\(?0\d{{1,4}}\)?[ ./-]{{0,2}}\d[\d ./-]{{4,}}\d\b(?!\.\d){_UNIT}", 0, "[phone]"),
        (rf"(?<![\w./-])\(?\d{{2,4}}\)?(?:[ ./-]\(?\d{{2,4}}\)?){{2,}}(?![\w.]*\w){_UNIT}", 0, "[phone]"),
        (r"(?<![\w.])\d{5} \d{5}\b", 0, "[phone]"),
        # Addresses.
        (
            rf"\b(?:(?:Flat|Apt\.?|Apartment|Unit|Suite|Room)\s+\w+,\s*)?\d{{1,5}}[A-Za-z]?,?\s+"
            rf"(?:{_CAP}\s+){{1,4}}{_NAMED_STREET}\b\.?{_TAIL}",
            0,
            "[address]",
        ),
        (
            rf"\b\d{{1,4}}(?:\s?bis|\s?ter)?,?\s+{_STREET_FIRST}\s+(?:(?:de|du|des|de la|la|le|l['’])\s*)*{_CAP}"
            rf"(?:[ -]{_CAP})"
            rf"*{_TAIL}",
            0,
            "[address]",
        ),
        (
            rf"(?<!\w){_STREET_FIRST}\s*(?:(?:de|del|de la|della|dei|di|da|do|dos|la)\s+)*{_CAP}"
            rf"(?:\s+{_CAP}){{0,3}},?\s*(?:n[.º°]?\s*)"
            rf"?\d{{1,4}}[A-Za-z]?\b{_TAIL}",
            0,
            "[address]",
        ),
        (
            rf"\b(?:{_CAP}\s+)?(?:[A-ZÄÖÜ][\w-]*|[A-ZÄÖÜ]\w+\s+){_STREET_LAST}\s*\d{{1,4}}\s?[a-z]?\b{_TAIL}",
            0,
            "[address]",
        ),
        (rf"\b(?:{_CAP}\s+)(?:Straße|Strasse|Str\.|Allee|Platz|Weg|Gasse)\s*\d{{1,4}}[a-z]?\b{_TAIL}", 0, "[address]"),
        (
            rf"\b(?:No\.?\s?)?\d{{1,4}}(?:-\d{{1,4}}){{1,2}},?\s+{_CAP}(?:-(?:ku|dong|gu|cho|machi))?{_TAIL}",
            0,
            "[address]",
        ),
        (rf"\bNo\.?\s?\d{{1,4}},?\s+(?:{_CAP}\s+){{1,4}}{_NAMED_STREET}\b{_TAIL}", 0, "[address]"),
        (rf"\b(?i:P\.?\s?O\.?\s?Box)\s+\d+{_TAIL}", 0, "[address]"),
        (r"\b[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2}\b", 0, "[address]"),
        (rf"\b{_CAP}(?:\s+{_CAP})?,\s*[A-Z]{{2}}\s+\d{{5}}(?:-\d{{4}})?\b", 0, "[address]"),
        (rf"\b\d{{5}} {_CAP}(?: (?:am|an der) {_CAP})?", 0, "[address]"),
        (rf"\b\d{{4}}\s?[A-Z]{{2}}\s+{_CAP}", 0, "[address]"),
        # Long numbers, whatever they are.
        (rf"\b[A-Z]{{2,}}-?\d{{4,}}\b(?<!OCT-\d{{4}})(?<!OCT\d{{4}}){_UNIT}", 0, "[number]"),
        (rf"\b(?=\w*\d{{5}})\w{{6,}}\b{_UNIT}|(?<![\d.])\d{{5,}}\b{_UNIT}", 0, "[number]"),
        (rf"\b\d{{2,}}[-/]\d{{4,}}(?:-\d+)?\b{_UNIT}|\b(?:19|20)\d\d/\d{{3,}}\b{_UNIT}", 0, "[number]"),
        (r"\b(?=(?:\w*\d){5})(?=(?:\w*[A-Z]){3})\w{9,}\b", 0, "[number]"),
        # Names by a label, in any letters.
        (
            r"\b((?:patient(?:'s)? name|name|surname|first name|last name|forename|given name|nachname"
            r"|vorname)\s*[:=]\s*)"
            r"(?![\s\[])(?:[^,;.\n\[]|(?<=\b[A-Z])\.)+(?:,\s*(?-i:[A-ZÀ-Þ])[\w'’-]*)?",
            re.I,
            r"\1[name]",
        ),
    )
)

_PLACE = re.compile(
    rf"\b(?:(?:{_CAP}|St\.|(?:[A-Z]\.)+)(?:['’]s?)?\s+(?:(?:of|the|and|for|de|di|la|del"
    rf"|&)\s+){{0,2}}){{1,6}}{_KEYWORD_LAST}\b(?:\s+(?:of"
    rf"|de|di|at|in|for)\s+(?:the\s+)?{_PROPER}|\s*,\s*{_CAP}(?=[\s.,;]|$)|\s+{_CAP})?"
    rf"|\b{_KEYWORD_FIRST}(?:\s+(?:de|di|del|della|dell['’]|d['’]|of|am|der|la|le|du|des|für|St\.))*\s*(?<=[\s'’])"
    rf"{_PROPER}(?:\s+(?:of|in)\s+{_PROPER})?"
)

_WORD = re.compile(r"(?<![\d_])[^\W\d_](?:[^\W\d_]|['’\-](?=[^\W\d_]))*(?![\w])")  # HbA1c and R2M1 are none
_INNER = re.compile(r"['’\-]")
# A date around a month in a language that _MONTH does not know.
_ANY_MONTH = re.compile(
    rf"\b{_DAY}\s+(?:de\s+)?(?P<before>[^\W\d_]{{3,}})\.?\s+(?:de\s+)?(?:19|20)\d\d\b"
    rf"|\b(?:19|20)\d\d\.?\s+(?P<after>[^\W\d_]{{3,}})\s+{_DAY}(?!\w)"
)
# Titles that are written small; "dr" is a retinopathy too, and then a word of reports follows.
_SMALL_TITLES = {"dr", "mr", "mrs", "ms", "prof"}
_GROUP_ENDS = re.compile(
    r"(?:opathy|opathies|itis|osis|oses|ectasia|ectasis|ectomy|otomy|plasty|scopy|graphy|graphic|trophy|trophic|"
    r"aemia|emia|opia|opsia|opic|rrhage|rrhagic|rrhages|blastoma|angioma|schisis|cyte|cytic|plegia|lysis|genic|"
    r"vascular|retinal|foveal|papillary|macular|ocular|choroidal|pigmented|mab|cept|prost|olol|zolamide"
    r"|mycin|isation|ization)$"
)


def _word_known(word: str) -> bool:
    """Whether a word (lower case) belongs to reports."""
    if word in WORDS or word in EPONYMS or word in ABBREVIATIONS or word in TITLES or len(word) == 1:
        return True
    if word.endswith("s") and (word[:-1] in WORDS or (word.endswith("es") and word[:-2] in WORDS)):
        return True
    return len(word) > 6 and _GROUP_ENDS.search(word) is not None


def _known(word: str) -> bool:
    lower = _bare(word)
    if word[0].isupper() and word[1:2].islower() and len(lower) < 4 and lower not in WORDS and lower not in TITLES:
        return False  # MA are microaneurysms, and Ma is a name
    return _word_known(lower) or all(_word_known(part) for part in _INNER.split(lower))


def _bare(word: str) -> str:
    """In lower case and without the ending of a possessive."""
    return word.lower().removesuffix("'s").removesuffix("’s")


def _foreign(word: str) -> bool:
    """Whether a word is of letters that no European language writes with Latin ones: a name in its own script."""
    return len(word) > 1 and all(ord(letter) > 0x370 for letter in word if letter.isalpha())


def _without_places(text: str) -> str:
    def mark(found: re.Match[str]) -> str:
        words = _WORD.findall(found.group(0))
        if _NAMES_A_PLACE.search(found.group(0)) or not all(
            _known(w) for w in words if w[0].isupper() and w not in _PLACE_WORDS
        ):
            return "[institution]"
        return found.group(0)

    return _PLACE.sub(mark, text)


def _without_foreign_dates(text: str) -> str:
    def mark(found: re.Match[str]) -> str:
        return found.group(0) if _word_known((found["before"] or found["after"]).lower()) else "[date]"

    return _ANY_MONTH.sub(mark, text)


_PLACE_WORDS = frozenset(_WORD.findall(_KEYWORD_LAST.replace("?:", ""))) | {"Centre", "Center", "Clinics", "Hospitals"}


def _without_names(text: str) -> str:
    """Marks names: unknown capitalised words, and with them those beside that may be part of a name."""
    words = list(_WORD.finditer(text))
    tokens = [word.group(0) for word in words]
    lower = [_bare(token) for token in tokens]
    latin = sum(map(_is_latin, tokens)) * 2 >= len(tokens)
    gaps = [text[words[i - 1].end() : words[i].start()] if i else "" for i in range(len(words))]
    capital = [any(part[:1].isupper() for part in _INNER.split(token)) for token in tokens]
    short = [token.isupper() and len(token) < 5 for token in tokens]  # an abbreviation, unless a name stands beside
    initial = [len(token) == 1 and capital[i] for i, token in enumerate(tokens)]
    name = [
        (capital[i] and not short[i] and not _known(token)) or (latin and _foreign(token))
        for i, token in enumerate(tokens)
    ]
    maybe = [
        capital[i]
        and (
            lower[i] in ALSO_NAMES or not EPONYMS.isdisjoint(_INNER.split(lower[i])) or (short[i] and not _known(token))
        )
        for i, token in enumerate(tokens)
    ]
    starts = [i == 0 or any(end in gaps[i] for end in ".:;!?\n") for i in range(len(words))]

    for i in range(1, len(words)):
        if lower[i] in EPONYMIC and gaps[i] == " " and (i == 1 or not (name[i - 2] or lower[i - 2] in TITLES | CUES)):
            name[i - 1] = False
        if tokens[i].islower() and len(tokens[i]) > 1 and not _known(tokens[i]):
            titled = tokens[i - 1] in _SMALL_TITLES and gaps[i] in (" ", ". ", ".")
            name[i] = titled or (name[i - 1] and tokens[i - 1].islower() and gaps[i] == " ")

    def beside(i: int) -> bool:
        """Whether word i and the one before stand as parts of a name do."""
        return gaps[i] in (" ", "  ", ". ", ".", "-", ", ", " & ") and not (
            gaps[i] == ". " and not initial[i - 1] and lower[i - 1] not in TITLES
        )

    for i in range(1, len(words)):
        close = beside(i)
        if capital[i] and lower[i - 1] in TITLES and tokens[i - 1][0].isupper() and gaps[i] in (" ", ". ", "."):
            name[i] = True
        elif maybe[i] and close and not starts[i] and lower[i - 1] in CUES and gaps[i] == " ":
            name[i] = name[i] or not (_clinical_follows(lower, gaps, i) or (i > 1 and lower[i - 2] in CALLED_AFTER))
        elif (
            (maybe[i] and initial[i - 1] and gaps[i] in (". ", ".") and not _clinical_follows(lower, gaps, i))
            or (short[i] and short[i - 1] and gaps[i] == " " and not _known(tokens[i]) and not _known(tokens[i - 1]))
            or (maybe[i - 1] and initial[i] and gaps[i] == " " and text[words[i].end() :].startswith("."))
            or (
                maybe[i]
                and close
                and lower[i - 1] in GIVEN
                and capital[i - 1]
                and gaps[i] == " "
                and not _clinical_follows(lower, gaps, i)
            )
        ):
            name[i - 1] = name[i] = True
    changed = True
    while changed:
        changed = False
        for i in range(len(words)):
            if name[i] or not (capital[i] or lower[i] in PARTICLES):
                continue
            left = i > 0 and name[i - 1] and beside(i)
            right = i + 1 < len(words) and name[i + 1] and beside(i + 1)
            if lower[i] in PARTICLES and not capital[i]:
                fits = right and (left or (gaps[i + 1] == " " and lower[i] not in ("y", "e", "do", "des")))
            elif initial[i]:
                fits = (left and (i + 1 == len(words) or gaps[i + 1][:1] in ".,;:)" or gaps[i + 1] == "")) or right
            else:
                joined = i > 1 and lower[i - 1] in ("and", "or") and name[i - 2]
                ends = i + 1 == len(words) or gaps[i + 1].strip() != ""
                fits = maybe[i] and (right or joined or (left and ("," not in gaps[i] or ends)))
            if fits:
                name[i] = changed = True
    parts, place, i = [], 0, 0
    while i < len(words):
        if not name[i]:
            i += 1
            continue
        first = i
        while i + 1 < len(words) and name[i + 1] and beside(i + 1):
            i += 1
        parts += [text[place : words[first].start()], "[name]"]
        place = words[i].end()
        last = tokens[i]
        if last.endswith(("'s", "’s")):
            parts.append(last[-2:])
        if initial[i] and text[place : place + 1] == "." and text[place + 1 : place + 2] not in ("", "\n"):
            place += 1
        i += 1
    return "".join([*parts, text[place:]])


def _clinical_follows(lower: list[str], gaps: list[str], i: int) -> bool:
    """Whether the word after word i makes of it what it is called after: "Weiss ring", "White spots"."""
    return i + 1 < len(lower) and lower[i + 1] in CALLED_AFTER and gaps[i + 1].strip(" -") == ""


def _is_latin(word: str) -> bool:
    return ord(word[0]) < 0x370


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


@lru_cache(maxsize=4096)  # keywords recur in a cohort
def deidentify_text(text: str) -> str:
    """Replaces names, dates, numbers that identify, addresses, phones and institutions in a report by a mark.

    For reports in English, with names, dates and addresses as Europe, America and East Asia write them. A text that was
    de-identified stays as it is. Clinical words, grades, ratios, acuities and measures stay. Years alone stay: they do
    not identify (45 CFR 164.514(b)(2)(i)(C)); ages above 89 do not.
    """
    for pattern, mark in _RULES:
        text = pattern.sub(mark, text)
    return _without_names(_without_places(_without_foreign_dates(text)))
