"""What the de-identification of reports finds and what it loses, on planted identifiers.

    python -m benchmarks.deidentification [--identifiers 6000] [--texts flair_expert_knowledge.json] [--missed 20]

Each report is drawn from sentences of ophthalmic letters, with made-up names, dates, numbers, addresses and
institutions in forms of Europe, America and Asia, and with clinical statements beside them. An identifier counts as
found when not one of its words or numbers is left; a clinical statement as kept when all of its words are.
"""

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from retinalogos.captions.reading import read_statements
from retinalogos.cohort.deidentify import deidentify_text
from retinalogos.cohort.findings import FINDINGS
from retinalogos.cohort.schema import ICDR_GRADES

# Given names and surnames that occur together; none is taken from a person. Some are words of reports on purpose.
_PEOPLE: dict[str, tuple[str, str]] = {
    "english": (
        "James Emily Oliver Charlotte Harriet Mark Rose Grace Will May Susan Gareth Siobhan Niamh Fiona Alistair",
        "Smith Taylor Kowalczyk White Brown Young Green Long Black O'Neill McDonald Fitzgerald Best Hall Hill Ashworth"
        " Whitfield Cartwright Price Gray Sharp Bright Armstrong Smyth-Jones Day Field Wood Banks",
    ),
    "american": (
        "Tyler Madison Brandon Ashley Jayden LaToya DeShawn Dakota Hunter Sierra",
        "Johnson Washington Kennedy Martinez-Lopez Van Buren Hawkins Stone Fox Gonzales Delacroix Baker Moore",
    ),
    "german": (
        "Jürgen Heike Wolfgang Anneliese Björn Käthe Ulrich Sabine Hans-Peter",
        "Müller Weiß Weiss Roth Schäfer Vogt Groß Fuchs Zimmermann von Hagen Schmidt-Rottluff Kühn Best Wagner",
    ),
    "french": (
        "Jean-Luc Amélie Étienne Chloé Benoît Océane Marie-Claire",
        "Dupont Lefèvre de la Tour Girard Béranger d'Aubigné Leroy Petit Roux Purtscher",
    ),
    "southern": (
        "María Giuseppe João Concepción Luca Inês Francisco Chiara",
        "García Pérez Rossi da Silva Núñez Esposito Ferreira dos Santos De Luca Iglesias Conti",
    ),
    "northern": (
        "Søren Åsa Eero Ingrid Sjoerd Marieke Łukasz Agnieszka Zdeněk Jitka",
        "Ødegård Lindqvist Virtanen van der Berg de Vries Wiśniewska Nowak Dvořák Horáková Kjær Szabó",
    ),
    "turkish_arabic": (
        "Ayşe Mehmet Fatima Abdul-Rahman Yusuf Layla Omar Nasreen",
        "Yılmaz Öztürk Al-Sayed Hassan bin Khalid El-Masri Haddad Çelik Abdullah",
    ),
    "indian": (
        "Priya Rajesh Venkata Lakshmi Arjun Sunita Gurpreet Anil",
        "Patel Iyer Subramaniam Kaur Chatterjee Singh Rao Krishnamurthy Das Bose",
    ),
}
_EAST = [
    "Wang Xiaoming",
    "Li Na",
    "Zhang Wei",
    "Chen Jing-yi",
    "He Xiaoling",
    "Long Yun",
    "Liu Yang",
    "Nguyen Thi Minh",
    "Tran Van Duc",
    "Le Hoang Anh",
    "Do Thi Lan",
    "Kim Min-jun",
    "Park Ji-hye",
    "Lee Soo-jin",
    "Choi Eun",
    "So Yeon-woo",
    "Tanaka Yuki",
    "Satō Haruto",
    "Ito Sakura",
    "Takahashi Ren",
    "Lim Wei Ling",
    "Tan Ah Kow",
    "Wong Siu Ming",
    "Xu Qing",
    "Ma Long",
    "An Thi Hoa",
    "Wu Yan",
]

_TOWNS = [
    "Leeds",
    "Heidelberg",
    "Nantes",
    "Bologna",
    "Kraków",
    "Gothenburg",
    "Springfield",
    "Pune",
    "Guangzhou",
    "Kyoto",
    "Busan",
    "Izmir",
    "Cork",
]
_MONTHS = (
    [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ],
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"],
)
_FOREIGN_MONTHS = (
    [
        "Januar",
        "Februar",
        "März",
        "April",
        "Mai",
        "Juni",
        "Juli",
        "August",
        "September",
        "Oktober",
        "November",
        "Dezember",
    ],
    [
        "janvier",
        "février",
        "mars",
        "avril",
        "mai",
        "juin",
        "juillet",
        "août",
        "septembre",
        "octobre",
        "novembre",
        "décembre",
    ],
    [
        "enero",
        "febrero",
        "marzo",
        "abril",
        "mayo",
        "junio",
        "julio",
        "agosto",
        "septiembre",
        "octubre",
        "noviembre",
        "diciembre",
    ],
    [
        "gennaio",
        "febbraio",
        "marzo",
        "aprile",
        "maggio",
        "giugno",
        "luglio",
        "agosto",
        "settembre",
        "ottobre",
        "novembre",
        "dicembre",
    ],
)


def _person(rng: random.Random) -> tuple[str, str]:
    """(given name, surname) in the order of the West."""
    if rng.random() < 0.25:
        surname, given = rng.choice(_EAST).split(" ", 1)
        return given, surname
    given, surnames = rng.choice(list(_PEOPLE.values()))
    # Surnames of several words start with a particle or with a capital and belong together.
    parts = re.findall(r"(?:(?:van|von|de|der|la|da|dos|De|Van|bin) )*\S+", surnames)
    return rng.choice(given.split()), rng.choice(parts)


# A lone White or May cannot be told from the word without a title or a cue; they are planted as full names.
_WORDS = frozenset(
    [
        "White",
        "Brown",
        "Young",
        "Green",
        "Long",
        "Black",
        "Best",
        "Hall",
        "Hill",
        "Price",
        "Gray",
        "Sharp",
        "Bright",
        "Day",
        "Field",
        "Wood",
        "Banks",
        "Stone",
        "Moore",
        "Weiss",
        "Roth",
        "Vogt",
        "Fuchs",
        "Wagner",
        "Purtscher",
        "Baker",
        "Kennedy",
        "Das",
        "Mark",
        "Rose",
        "Grace",
        "Will",
        "May",
        "Hunter",
        "Le",
        "Do",
        "He",
        "So",
        "An",
        "Ma",
        "Lee",
        "Li",
        "Tan",
        "Park",
        "Fox",
        "Yang",
        "Na",
        "Wei",
        "Van",
        "Lan",
        "Hoa",
        "Ling",
    ]
)


def _titled(rng: random.Random) -> str:
    given, surname = _person(rng)
    if surname.isalpha() and surname not in _WORDS and rng.random() < 0.1:
        return f"{rng.choice(['dr', 'mr', 'mrs', 'prof.'])} {surname.lower()}"
    title = rng.choice(["Dr", "Dr.", "Mr", "Mrs", "Ms", "Miss", "Prof.", "Professor", "Herr", "Frau", "Mme", "Sr."])
    return f"{title} {rng.choice([surname, f'{given} {surname}', f'{given[0]}. {surname}', f'{given[0]} {surname}'])}"


def _plain_name(rng: random.Random) -> str:
    given, surname = _person(rng)
    if rng.random() < 0.15:
        return rng.choice(_EAST)
    middle = rng.choice("ABCDEGHJKLMPRSTW")
    forms = [
        f"{given} {surname}",
        f"{given} {middle}. {surname}",
        f"{surname}, {given}",
        f"{given[0]}. {surname}",
        f"{surname} {given[0]}.",
        f"{surname.upper()}, {given}",
        f"{given.upper()} {surname.upper()}",
        f"{given} {surname.upper()}",
    ]
    return rng.choice(forms)


def _lone_name(rng: random.Random) -> str:
    given, surname = _person(rng)
    options = [name for name in (given, surname) if not _WORDS & set(name.split())]
    return rng.choice(options) if options else f"{given} {surname}"


_IN_WORDS = (
    *("twenty-first", "first", "second", "third", "fourth", "fifth"),
    *("eleventh", "twelfth", "nineteenth", "thirtieth"),
)


def _date(rng: random.Random) -> str:
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1931, 2025)
    long, short = (names[month - 1] for names in _MONTHS)
    suffix = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd"}.get(day, "th")
    foreign = rng.choice(_FOREIGN_MONTHS)[month - 1]
    return rng.choice(
        [
            f"{year}-{month:02}-{day:02}",
            f"{day}/{month}/{year}",
            f"{month}/{day}/{year}",
            f"{day:02}.{month:02}.{year}",
            f"{day}.{month}.{year % 100:02}",
            f"{day:02}-{month:02}-{year % 100:02}",
            f"{day} {long} {year}",
            f"{day}{suffix} {long} {year}",
            f"{day}{suffix} of {long} {year}",
            f"{day}{suffix} of {long}",
            f"{long} {day}, {year}",
            f"{long} {day}{suffix}, {year}",
            f"{short} {day}, {year}",
            f"{day}-{short}-{year}",
            f"{day}-{short}-{year % 100:02}",
            f"{day}{short.upper()}{year}",
            f"{day} {short} '{year % 100:02}",
            f"{long} {year}",
            f"{short} {year}",
            f"{month:02}/{year}",
            f"{year}/{month:02}/{day:02}",
            f"{year}.{month}.{day}",
            f"{year}年{month}月{day}日",
            f"{year}{month:02}{day:02}",
            f"{day}. {foreign} {year}",
            f"{day} {foreign} {year}",
            f"{day} de {foreign} de {year}",
            f"{day} {long}",
            f"{long} {day}{suffix}",
            f"the {_IN_WORDS[day % 10]} of {long}",
            f"{long} the {_IN_WORDS[day % 10]}, two thousand and nineteen",
            f"{day} {rng.choice(['czerwca', 'října', 'haziran', 'kesäkuuta', 'июня', 'Μαρτίου'])} {year}",
            f"{year}-{month:02}-{day:02}T09:{rng.randint(10, 59)}",
        ]
    )


def _digits(rng: random.Random, n: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(n))


def _record(rng: random.Random) -> str:
    d, letters = partial(_digits, rng), "".join(rng.choice("ABCDEFGHKLMNPRSTXYZ") for _ in range(2))
    return rng.choice(
        [
            f"MRN {d(7)}",
            f"MRN: {letters}{d(6)}",
            f"MRN#{d(8)}",
            f"NHS number {d(3)} {d(3)} {d(4)}",
            f"NHS no. {d(10)}",
            f"hospital number {letters[0]}{d(6)}",
            f"Hosp. No. {d(6)}",
            f"SSN 5{d(2)}-{d(2)}-{d(4)}",
            f"ID: {d(5)}",
            f"ID {letters}-{d(4)}",
            f"patient ID {d(6)}",
            f"Patient no. {d(4)}",
            f"case #{d(4)}",
            f"case number {d(2)}-{d(4)}",
            f"accession no {d(2)}-{d(5)}",
            f"record {d(8)}",
            f"chart no. {d(5)}",
            f"Fallnr. {d(7)}",
            f"Pat.-Nr. {d(5)}",
            f"DNI {d(8)}{letters[0]}",
            f"CPR {d(6)}-{d(4)}",
            f"Aadhaar {d(4)} {d(4)} {d(4)}",
            f"insurance no. {letters[0]}{d(9)}",
            f"{letters}{d(7)}",
            f"#{d(6)}",
            f"PESEL {d(11)}",
            f"NRIC S{d(7)}{letters[0]}",
            f"file {letters}/{d(5)}",
            f"passport {letters[0]}{d(8)}",
            f"study ID {letters}-{d(3)}-{d(2)}",
        ]
    )


def _phone(rng: random.Random) -> str:
    d = partial(_digits, rng)
    return rng.choice(
        [
            f"+44 20 7{d(3)} {d(4)}",
            f"+44 (0)20 7{d(3)} {d(4)}",
            f"07{d(3)} {d(6)}",
            f"020 7{d(3)} {d(4)}",
            f"(6{d(2)}) 555-{d(4)}",
            f"6{d(2)}-555-{d(4)}",
            f"6{d(2)}.555.{d(4)}",
            f"+1-6{d(2)}-555-{d(4)}",
            f"089/{d(7)}",
            f"0171 {d(6)} {d(2)}",
            f"+49 761 {d(3)}-{d(4)}",
            f"0761-{d(3)} {d(5)}",
            f"01 {d(2)} {d(2)} {d(2)} {d(2)}",
            f"+33 1 {d(2)} {d(2)} {d(2)} {d(2)}",
            f"+86 13{d(1)} {d(4)} {d(4)}",
            f"13{d(9)}",
            f"090-{d(4)}-{d(4)}",
            f"+91 9{d(4)} {d(5)}",
            f"9{d(4)} {d(5)}",
            f"+34 6{d(2)} {d(3)} {d(3)}",
            f"+39 02 {d(4)} {d(4)}",
            f"010-{d(4)}-{d(4)}",
            f"ext. {d(4)}",
            f"tel. {d(6)}",
            f"+41 44 {d(3)} {d(2)} {d(2)}",
            f"(0{d(2)}) {d(4)} {d(4)}",
        ]
    )


def _e_mail(rng: random.Random) -> str:
    given, surname = _person(rng)
    user = f"{given}.{surname}".lower().replace(" ", "")
    host = rng.choice(["clinic.org.uk", "augen-praxis.de", "hospital.example.com", "mail.example.cn", "nhs.net"])
    return rng.choice(
        [
            f"{user}@{host}",
            f"{given[0].lower()}{rng.randint(1, 99)}@{host}",
            f"{surname.lower().replace(' ', '_')}+eye@{host}",
            f"https://{host}/p/{rng.randint(1, 9999)}",
            f"www.{host}/{user}",
        ]
    )


def _address(rng: random.Random) -> str:
    n, town, d = rng.randint(2, 240), rng.choice(_TOWNS), partial(_digits, rng)
    return rng.choice(
        [
            f"{n} Baker Street, {town} LS{rng.randint(1, 9)} {rng.randint(1, 9)}DY",
            f"{n}B Rosemount Avenue, {town}",
            f"Flat {n % 20 + 1}, {n} Old Mill Road, {town}",
            f"{n} W Elm St, {town}, IL 6{d(4)}",
            f"{n} Magnolia Blvd., {town}, CA 9{d(4)}-{d(4)}",
            f"Hauptstraße {n}, 8{d(4)} {town}",
            f"Am Lindenweg {n}, {town}",
            f"Goethestr. {n}, 7{d(4)} {town}",
            f"{n} rue de la Paix, 75{d(3)} Paris",
            f"{n}, avenue Foch, {town}",
            f"Via Garibaldi {n}, 00{d(3)} {town}",
            f"Calle Alcalá {n}, {town}",
            f"Herengracht {n}, 10{d(2)} AB Amsterdam",
            f"Storgatan {n}, {town}",
            f"ul. Długa {n}, {town}",
            f"No. {n} Xianlie South Road, {town}",
            f"3-{n % 20 + 1}-{n % 30 + 1} Shinjuku, {town}",
            f"{n} MG Road, {town} 5{d(5)}",
            f"PO Box {d(4)}, {town}",
            f"{n} Station Close, {town}",
            f"W1T {rng.randint(1, 9)}JF",
            f"EH{rng.randint(1, 9)} {rng.randint(1, 9)}XQ",
        ]
    )


def _institution(rng: random.Random) -> str:
    town, name = (
        rng.choice(_TOWNS),
        rng.choice(["Ashgrove", "Sternberg", "Montclair", "Riverside", "Larkhill", "Bellevue", "Kirchhoff"]),
    )
    return rng.choice(
        [
            f"{name} Eye Hospital",
            f"Royal {town} Infirmary",
            f"St {name}'s Hospital",
            f"{town} General Hospital",
            f"{name} Eye Institute",
            f"University Hospital of {town}",
            f"{town} University Hospital",
            f"{name} Medical Center",
            f"the {name} Clinic",
            f"{name} Opticians",
            f"{town} NHS Foundation Trust",
            f"Universitätsklinikum {town}",
            f"Augenklinik {town}",
            f"Klinikum {name}",
            f"CHU de {town}",
            f"Hôpital {name}",
            f"Hospital Clínico {name}",
            f"Ospedale San {name}",
            f"{name} National Eye Centre",
            f"{town} Medical University",
            f"All {town} Institute of Medical Sciences",
            f"{name} Surgery",
            f"The {name} Practice",
            f"{town} Eye and Ear Infirmary",
            f"{name} Ophthalmic Center",
            f"Queen {name} Hospital",
            f"L.V. {name} Eye Institute",
            f"{name} Vision Associates",
            f"{name} Optometrists Ltd",
        ]
    )


def _age(rng: random.Random) -> str:
    age = rng.randint(90, 104)
    return rng.choice(
        [
            f"{age}-year-old",
            f"{age} year old",
            f"{age} years old",
            f"aged {age}",
            f"{age} y/o",
            f"{age} yo",
            f"{age} yrs old",
            rng.choice(["ninety-two years old", "ninety-six year old", "aged ninety-one"]),
        ]
    )


# Kind → how one is made and the sentences that it stands in; {} is its place.
_KINDS: dict[str, tuple[Callable[[random.Random], str], tuple[str, ...]]] = {
    "name with title": (
        _titled,
        (
            "Referred by {} for laser.",
            "{} reviewed the images.",
            "Dear {},",
            "Seen with {} in the macular clinic.",
            "Copy to {}.",
            "Yours sincerely, {}",
            "{}'s left eye is stable.",
            "Discussed with {} and the family.",
            "Many thanks to {}; retinal detachment was excluded.",
        ),
    ),
    "full name": (
        _plain_name,
        (
            "Patient: {}.",
            "Name: {}",
            "{} attended the diabetic clinic.",
            "I reviewed {} today.",
            "Thank you for referring {}, who has drusen.",
            "Graded by {}.",
            "The photographs of {} show hard exudates.",
            "{} was seen for screening.",
            "Seen by {} in the eye clinic.",
            "Discussed with {} on the telephone.",
            "Re: {} - glaucoma suspect.",
            "Signed {}",
            "Optometrist {} noted disc pallor.",
            "Accompanied by daughter {}.",
        ),
    ),
    "lone name": (
        _lone_name,
        (
            "{} attended alone.",
            "I met {} and explained the finding.",
            "In summary {} has moderate non-proliferative retinopathy.",
            "We will see {} again in six months.",
            "{} complains of floaters.",
            "The right eye of {} is unchanged.",
            "Images graded by {}.",
            "Today {} reports no pain.",
            "Vision in {}'s left eye is 6/9.",
        ),
    ),
    "date": (
        _date,
        (
            "Seen on {}.",
            "Date of birth: {}.",
            "DOB {}",
            "Last visit {}, no change.",
            "Laser was done on {} to the left eye.",
            "Images of {} compared.",
            "Follow-up on {} at the clinic.",
            "Between {} and today the cup enlarged.",
            "({}) Fundus photograph, right eye.",
            "Cataract surgery {}.",
        ),
    ),
    "record number": (
        _record,
        (
            "{}.",
            "Patient with {} has drusen.",
            "Re: {} - left eye.",
            "The record is filed under {}.",
            "{}: moderate NPDR.",
            "See {} for the earlier images.",
        ),
    ),
    "phone": (
        _phone,
        (
            "Please call {}.",
            "Phone {} for an appointment.",
            "Contact: {}",
            "The clinic can be reached at {}.",
            "Tel: {}; fax on request.",
            "Mobile {}.",
        ),
    ),
    "e-mail or link": (_e_mail, ("Write to {}.", "Images sent by {}.", "Contact {} for the scans.", "E-mail: {}")),
    "address": (
        _address,
        (
            "Lives at {}.",
            "Address: {}.",
            "Letter sent to {}.",
            "The patient moved to {} last year.",
            "Home visit at {}.",
        ),
    ),
    "institution": (
        _institution,
        (
            "Referred to {}.",
            "Treated at {} before.",
            "Images from {}.",
            "She was operated at {} for retinal detachment.",
            "{} will arrange laser.",
            "Previous records of {} were not available.",
        ),
    ),
    "age above 89": (_age, ("The patient is {}.", "A {} person with drusen.", "She is {} and lives alone.")),
}

_PLACES = (
    "in all four quadrants",
    "at the macula",
    "temporal to the fovea",
    "within 2.5 disc diameters of the disc",
    "in the left eye",
    "in the right eye",
)
_MEASURES = (
    "Cup-to-disc ratio 0.65 in the left eye and 0.4 in the right eye.",
    "C/D 0.3/0.4.",
    "IOP 21 mmHg, 18 mmHg.",
    "IOP 14/15 mmHg at 10:30.",
    "Visual acuity 6/9 and 20/40.",
    "Lesion of 2.5 disc diameters, 1/3 disc area.",
    "Axial length 23.64 mm.",
    "Refraction -1.75 x 90, +0.50/-1.25 x 180.",
    "Central thickness 312 µm.",
    "Thickness 250, 260 and 270 µm.",
    "ICDR grade 2, DR grade 3 of 4.",
    "Grade R2M1 OD, R1M0 OS.",
    "ETDRS level 47, 85 letters.",
    "HbA1c 7.9 %, diabetes for 12 years.",
    "Aged 57 with type 2 diabetes since 2009.",
    "Review in 4-6 months.",
    "MD -6.12 dB, VFI 87 %.",
    "Snellen 20/200.",
    "Drusen of 63-125 µm.",
    "Weiss ring in the right eye.",
    "Roth spots and Hollenhorst plaque.",
    "Best disease suspected in the left eye.",
    "Drusen of Gass.",
    "White spots OD.",
    "Fuchs spot, Elschnig pigment rings.",
    "Vogt-Koyanagi-Harada disease excluded.",
    "Coats disease and Stargardt disease.",
    "Bardet-Biedl, Cohen syndrome and Batten disease excluded.",
    "Morning Glory anomaly, Ota naevus.",
    "MEWDS, APMPPE or AZOOR.",
    "Humphrey 24-2 field full.",
    "Topcon camera, 45 degrees, field 2.",
    "Left eye: laser scars. Right eye: normal.",
    "IRMA in 2 quadrants, NVD < 1/3 disc area.",
    "Optic Disc: Sharp Rim. Macula: Flat.",
    "Long eye, Green filter, Red reflex normal.",
    "May need laser.",
    "Brown lesion and Black spots noted.",
)


@dataclass(frozen=True)
class Planted:
    """A report sentence with one identifier in it.

    Attributes:
        kind: of the identifier.
        identifier: as planted.
        text: the report.
        clinical: the statements that stand around it.
    """

    kind: str
    identifier: str
    text: str
    clinical: tuple[str, ...]


def plant(count: int, seed: int) -> Iterator[Planted]:
    """``count`` reports with an identifier each, all kinds in turn; the same for the same seed."""
    rng = random.Random(seed)
    kinds = list(_KINDS)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        make, sentences = _KINDS[kind]
        identifier, sentence = make(rng), rng.choice(sentences)
        if kind == "age above 89" and sentence.startswith("A {}") and identifier.startswith("aged"):
            sentence = sentences[0]
        clinical = (_statement(rng), _statement(rng))
        stated = sentence.format(identifier)
        stated = stated[0].upper() + stated[1:] if sentence.startswith("{}") else stated
        yield Planted(
            kind,
            identifier,
            f"{clinical[0]} {stated}{' ' if sentence.endswith('.') else chr(10)}{clinical[1]}",
            clinical,
        )


def _statement(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(_MEASURES)
    finding = rng.choice([*FINDINGS.values(), *ICDR_GRADES])
    sentence = f"{finding} {rng.choice(_PLACES)}."
    return rng.choice([sentence[0].upper() + sentence[1:], f"There are {sentence}", f"No {sentence}", sentence.title()])


_TOKEN = re.compile(r"\w+")
# Words of an identifier that identify nobody: titles, particles, what announces a number, what hospitals are called.
_COMMON = frozenset(
    [
        "dr",
        "mr",
        "mrs",
        "ms",
        "miss",
        "prof",
        "professor",
        "herr",
        "frau",
        "mme",
        "sr",
        "de",
        "la",
        "da",
        "dos",
        "der",
        "van",
        "von",
        "den",
        "bin",
        "del",
        "of",
        "the",
        "and",
        "at",
        "year",
        "years",
        "old",
        "aged",
        "y",
        "o",
        "yo",
        "yrs",
        "st",
        "mrn",
        "nhs",
        "ssn",
        "id",
        "no",
        "nr",
        "number",
        "hospital",
        "hosp",
        "patient",
        "case",
        "record",
        "accession",
        "chart",
        "file",
        "study",
        "fallnr",
        "pat",
        "dni",
        "cpr",
        "aadhaar",
        "insurance",
        "pesel",
        "nric",
        "passport",
        "ext",
        "tel",
        "hospitals",
        "eye",
        "clinic",
        "s",
        "www",
        "https",
        "t",
        "http",
    ]
)


def left_over(planted: Planted, text: str) -> list[str]:
    """Words and numbers of the identifier that are left in ``text``, the de-identified report."""
    # As often as they stand in the statements around it they may stay.
    around = Counter(_TOKEN.findall(planted.text.replace(planted.identifier, " ", 1).lower()))
    here = Counter(_TOKEN.findall(re.sub(r"\[[\w-]+\]", " ", text.lower())))
    words = {word for word in _TOKEN.findall(planted.identifier.lower()) if word not in _COMMON}
    return sorted(word for word in words if here[word] > around[word] or (here[word] and not around[word]))


def lost(statement: str, text: str) -> list[str]:
    """Words and numbers of a clinical statement that ``text`` has not."""
    here = Counter(re.findall(r"[\w.+/%-]*\w", text))
    return sorted(w for w, n in Counter(re.findall(r"[\w.+/%-]*\w", statement)).items() if here[w] < n)


def clinical_statements(texts: Path | None) -> Iterator[str]:
    """Every finding, grade and measure, and the expert texts of a file, in the capitals that reports use."""
    terms = [*FINDINGS.values(), *ICDR_GRADES]
    if texts is not None:
        terms += [
            t for name, described in json.loads(texts.read_text())["definitions"].items() for t in (name, *described)
        ]
    for term in dict.fromkeys(terms):
        whole = f"{term} of the left eye, cup-to-disc ratio 0.65, 2.5 disc diameters"
        yield from (whole, whole[0].upper() + whole[1:], whole.title(), whole.upper())
    yield from _MEASURES


@dataclass(frozen=True)
class Score:
    """What was found and lost.

    Attributes:
        planted, found: by kind of identifier.
        missed: planted and what became of it, where something is left.
        statements: clinical statements read.
        damaged: those that lost a word or number, with what became of them.
    """

    planted: Counter[str]
    found: Counter[str]
    missed: list[tuple[Planted, str]]
    statements: int
    damaged: list[tuple[str, str]]

    @property
    def recall(self) -> float:
        """Share of all identifiers that were found."""
        return self.found.total() / self.planted.total()


def measure(count: int, seed: int, texts: Path | None = None) -> Score:
    """Recall of planted identifiers, and clinical statements damaged beside them and by themselves."""
    planted, found = Counter[str](), Counter[str]()
    missed, damaged, statements = [], [], 0
    for case in plant(count, seed):
        text = deidentify_text(case.text)
        planted[case.kind] += 1
        if left_over(case, text):
            missed.append((case, text))
        else:
            found[case.kind] += 1
        statements += len(case.clinical)
        damaged += [(statement, text) for statement in case.clinical if lost(statement, text)]
    for statement in clinical_statements(texts):
        statements += 1
        text = deidentify_text(statement)
        if lost(statement, text) or read_statements(text) != read_statements(statement):
            damaged.append((statement, text))
    return Score(planted, found, missed, statements, damaged)


def main(arguments: list[str] | None = None) -> None:
    """Prints recall by kind and the clinical statements that were damaged."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--identifiers", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--texts", type=Path, help="FLAIR's expert knowledge as JSON: its definitions must survive")
    parser.add_argument("--missed", type=int, default=5, help="examples shown of what was missed and of what was lost")
    options = parser.parse_args(arguments)
    score = measure(options.identifiers, options.seed, options.texts)
    print("| identifier | planted | found | recall |\n|---|---|---|---|")
    for kind, count in score.planted.items():
        print(f"| {kind} | {count} | {score.found[kind]} | {score.found[kind] / count:.4f} |")
    print(f"| all | {score.planted.total()} | {score.found.total()} | {score.recall:.4f} |")
    print(f"\nclinical statements damaged: {len(score.damaged)} of {score.statements}")
    for case, text in score.missed[: options.missed]:
        print(f"missed {case.kind} {case.identifier!r}: {text}")
    for statement, text in score.damaged[: options.missed]:
        print(f"damaged {statement!r}: {text}")


if __name__ == "__main__":
    main()
