"""Captions without a model: from what a record knows to what a reader would write.

A caption is planned as sentences, one per topic, in the paper's order: modality with laterality, grade and glaucoma
(the attributes that a generator must obey, so they stand first and in every caption), image quality, disc, cup,
vessels, macula, lesions, what is absent, conclusion, background tone. Each sentence has several forms, the richest
first; the token budget decides which sentences stand and in which form, and none is ever cut.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal

from retinalogos.captions.description import DIABETIC_LESIONS, Description, describe
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.findings import FINDINGS
from retinalogos.cohort.schema import ICDR_GRADES
from retinalogos.errors import UsageError

Granularity = Literal["coarse", "fine"]
GRANULARITIES: tuple[Granularity, ...] = ("coarse", "fine")

# Raise when a wording changes, so that stored captions say which templates wrote them.
PROMPT_VERSION = "template-2"

_MODALITIES = (
    "colour fundus photograph",
    "retinal fundus photograph",
    "colour fundus image",
    "colour retinal photograph",
)
_SHORT_MODALITIES = ("fundus photograph", "retinal photograph", "fundus image", "retinal image")
_OPENINGS = 4  # ways to put an opening together, see _rich_opening and _short_opening
# Every wording of one record opens differently, so no two are alike.
MAX_WORDINGS = len(_MODALITIES) * _OPENINGS

# Findings as they read inside a sentence, where the vocabulary's own name does not.
_PHRASES = {
    "haemorrhage": "retinal haemorrhages",
    "soft_exudate": "cotton wool spots",
    "cataract": "lens opacity suggestive of cataract",
    "tessellated_fundus": "a tessellated background",
    "epiretinal_membrane": "an epiretinal membrane",
    "macular_hole": "a macular hole",
    "rim_notch": "notching of the neuroretinal rim",
    "nerve_fibre_layer_defect": "a nerve fibre layer defect",
    "disc_haemorrhage": "a disc haemorrhage",
    "disc_oedema": "swelling of the optic disc",
    "diabetic_retinopathy": "diabetic retinopathy of unstated grade",
    "maculopathy": "maculopathy",
    "preretinal_haemorrhage": "preretinal haemorrhage",
    "vessel_sheathing": "sheathed white vessels",
    "retinal_fold": "a retinal fold",
    "exudate": "exudates",
    "macular_scar": "a macular scar",
    "chorioretinal_scar": "a chorioretinal scar",
    "choroidal_naevus": "a choroidal naevus",
    "choroidal_rupture": "a choroidal rupture",
    "retinal_embolus": "a retinal arterial embolus",
    "macroaneurysm": "a retinal arterial macroaneurysm",
    "increased_cup_disc": "an increased cup-to-disc ratio",
    "tilted_disc": "a tilted optic disc",
    "coloboma": "a coloboma",
    "myopic_fundus": "a myopic fundus",
    "other": "an unspecified abnormality",
}
_SHORT_PHRASES = {
    "haemorrhage": "haemorrhages",
    "cataract": "cataract",
    "tessellated_fundus": "tessellation",
    "rim_notch": "rim notching",
    "irma": "IRMA",
}
# How lesions look, told where there is room: experts name size, colour and edge (docs/captions.md, wording and experts)
_LOOKS = {
    "microaneurysm": "small red microaneurysms",
    "haemorrhage": "dark red retinal haemorrhages",
    "hard_exudate": "yellowish hard exudates with sharp margins",
    "soft_exudate": "pale cotton wool spots with ill-defined edges",
    "drusen": "yellow-white drusen",
}

# Where in the order a finding is told.
_DISC = (
    "rim_notch",
    "disc_haemorrhage",
    "nerve_fibre_layer_defect",
    "peripapillary_atrophy",
    "disc_oedema",
    "optic_atrophy",
    "disc_pallor",
    "increased_cup_disc",
    "tilted_disc",
    "coloboma",
    "optociliary_shunt",
    "myelinated_nerve_fibre",
)
_VESSELS = (
    "venous_beading",
    "retinal_embolus",
    "macroaneurysm",
    "collateral_vessels",
    "vessel_tortuosity",
    "vessel_sheathing",
    "arteriosclerosis",
)
_MACULA = (
    "macular_oedema",
    "geographic_atrophy",
    "macular_hole",
    "macular_scar",
    "maculopathy",
    "epiretinal_membrane",
    "parafoveal_telangiectasia",
    "drusen",
    "retinal_fold",
)
_BACKGROUND = ("tessellated_fundus",)
# Diseases: a picture can suggest them, and a reader says no more than that.
_DISEASES = (
    "wet_amd",
    "choroidal_neovascularisation",
    "haemorrhagic_pigment_epithelial_detachment",
    "dry_amd",
    "amd",
    "central_retinal_artery_occlusion",
    "central_retinal_vein_occlusion",
    "branch_retinal_artery_occlusion",
    "branch_retinal_vein_occlusion",
    "cilioretinal_artery_occlusion",
    "vascular_occlusion",
    "retinal_detachment",
    "ischaemic_optic_neuropathy",
    "disc_pit_maculopathy",
    "chorioretinitis",
    "retinitis",
    "vasculitis",
    "haemorrhagic_retinopathy",
    "pathological_myopia",
    "myopic_fundus",
    "retinitis_pigmentosa",
    "hypertensive_retinopathy",
    "central_serous_chorioretinopathy",
    "cataract",
    "media_opacity",
    "diabetic_retinopathy",
    "suspected_diabetic_retinopathy",
    "vitreous_degeneration",
    "asteroid_hyalosis",
)
# Lesions, the gravest first: so they are listed, and so they are kept where the budget is short.
_LESIONS = (
    "neovascularisation",
    "preretinal_haemorrhage",
    "vitreous_haemorrhage",
    "haemorrhage",
    "hard_exudate",
    "soft_exudate",
    "exudate",
    "irma",
    "microaneurysm",
    "laser_scar",
    "chorioretinal_scar",
    "chorioretinal_atrophy",
    "retinal_atrophy",
    "choroidal_naevus",
    "choroidal_rupture",
    "choroidal_folds",
    "retinal_traction",
    "rpe_hypertrophy",
    "rpe_changes",
    "other",
)
_PLACED = {*_DISC, *_VESSELS, *_MACULA, *_BACKGROUND, *_DISEASES, *_LESIONS}

# Diseases that a picture shows as such, or whose name is a hedge.
_NEED_NO_HEDGE = {"suspected_diabetic_retinopathy", "media_opacity", "vitreous_degeneration", "asteroid_hyalosis"}

# Up to how many lesions a reader would say "a few" and "several". Microaneurysms and haemorrhages: 5, and the 20 of the
# 4-2-1 rule (Wilkinson et al. 2003); the others are rarer, and their bounds split a phantom cohort into thirds.
_AMOUNTS = {
    "microaneurysm": (5, 20),
    "haemorrhage": (5, 20),
    "hard_exudate": (2, 4),
    "soft_exudate": (1, 3),
    "drusen": (15, 35),
}

# Absences worth telling, the most telling first.
_LOOKED_FOR = (
    "neovascularisation",
    "hard_exudate",
    "haemorrhage",
    "soft_exudate",
    "vitreous_haemorrhage",
    "microaneurysm",
)

_GRADED_RICH = ("features suggestive of", "findings consistent with", "changes in keeping with", "signs suggestive of")
_GRADED_SHORT = ("signs of", "probable", "likely", "features of")
_GLAUCOMA_RICH = {
    "no": ("no sign of glaucoma", "no evident glaucomatous change"),
    "suspect": ("suspected glaucoma", "a disc appearance suspicious for glaucoma"),
    "glaucoma": ("an appearance suggestive of glaucoma", "signs suggestive of glaucoma"),
}
_GLAUCOMA_SHORT = {
    "no": ("no sign of glaucoma",),
    "suspect": ("suspected glaucoma",),
    "glaucoma": ("signs of glaucoma", "glaucomatous changes"),
}


@dataclass(frozen=True)
class Caption:
    """A caption and its length in tokens of the text encoder, special tokens included."""

    text: str
    tokens: int


@dataclass(frozen=True)
class Sentence:
    """One topic of a caption.

    Attributes:
        topic: what it is about.
        forms: the same statement, the richest form first.
        importance: what stands where the budget is short; OPENING always does, up to ROUNDING_OFF what is left over.
    """

    topic: str
    forms: tuple[str, ...]
    importance: float


OPENING = 100.0
# What says nothing new stands only where all else is told in full.
ROUNDING_OFF = 15.0


def _picks(seed: int, identity: str, granularity: str, wording: int) -> bytes:
    """A byte for every choice among words: each topic has its own, so that one changed attribute changes its sentence
    alone. A byte picks one of nine evenly to four parts in a hundred."""
    return blake2b(f"{seed}/{identity}/{granularity}/{wording}".encode(), digest_size=16).digest()


def _way(seed: int, identity: str, granularity: str, wording: int) -> tuple[int, int]:
    """(modality, structure) of the opening: different for every wording below MAX_WORDINGS."""
    first = blake2b(f"{seed}/{identity}/{granularity}".encode(), digest_size=1).digest()[0]
    # The structure changes with each wording, the modality after all structures were used.
    return divmod((first + wording) % MAX_WORDINGS, _OPENINGS)


def write_caption(
    record: Mapping[str, Any], *, granularity: Granularity, wording: int, seed: int, budget: TokenBudget
) -> Caption:
    """The caption of one record; see :func:`write_captions`."""
    return write_captions([(record, granularity, wording, seed)], budget)[0]


def write_captions(
    requests: Sequence[tuple[Mapping[str, Any], Granularity, int, int]], budget: TokenBudget
) -> list[Caption]:
    """Captions of many records, their tokens counted in a few calls.

    Args:
        requests: (record, granularity, wording, seed). A record is a cohort row without pixels or any part of one;
            ``wording`` is 0 to MAX_WORDINGS - 1, and two wordings of a record always differ. The same request gives
            the same text.
        budget: of the text encoder.

    Raises:
        UsageError: there is no such granularity or wording, or the budget is too small for the opening sentence.
        DataError: a record holds a value outside the vocabulary.
    """
    plans = []
    before, facts = None, None
    for record, granularity, wording, seed in requests:
        _check(granularity, wording)
        if facts is None or record is not before:  # the wordings of an image come one after another
            before, facts = record, _Facts(record)
        plans.append(facts.sentences(granularity, wording, seed))
    return fit(plans, budget)


def fit(plans: Sequence[Sequence[Sentence]], budget: TokenBudget) -> list[Caption]:
    """The captions that planned sentences give within a budget: whole sentences, chosen by their importance.

    Args:
        plans: sentences in reading order, the first of importance OPENING.
        budget: of the text encoder.

    Raises:
        UsageError: the budget is too small for an opening sentence.
    """
    lengths = budget.lengths(form for sentences in plans for sentence in sentences for form in sentence.forms)
    room = budget.budget - budget.special_tokens
    texts, tokens = [], []
    for sentences in plans:
        text, length = _fit(sentences, lengths, room)
        texts.append(text)
        tokens.append(budget.special_tokens + length)
    if not budget.additive:
        tokens = budget.count_all(texts)
    for index, sentences in enumerate(plans):
        # The parts' lengths add up for word-piece tokenizers; others may cut the whole differently.
        left = room
        while tokens[index] > budget.budget:
            if texts[index] == sentences[0].forms[-1]:
                raise UsageError(
                    f"token_budget {budget.budget}: the opening sentence alone takes {tokens[index]} tokens of "
                    f"{budget.source} ({texts[index]!r}); give a larger budget"
                )
            left -= tokens[index] - budget.budget
            texts[index], _ = _fit(sentences, lengths, left)
            tokens[index] = budget.count(texts[index])
    return [Caption(text, length) for text, length in zip(texts, tokens, strict=True)]


def _fit(sentences: Sequence[Sentence], lengths: Mapping[str, int], room: int) -> tuple[str, int]:
    """The sentences that stand, as a text, and the tokens that they take.

    First as many topics as fit, the most important first, each in its shortest form; then richer forms, in the same
    order, as far as the room goes, the opening last, whose short form leaves nothing out; then what only rounds off.
    """
    ranked, rounding = _ranked(tuple([sentence.importance for sentence in sentences]))
    chosen: dict[int, tuple[str, int]] = {}  # place of a sentence → the form that stands, and its tokens
    left = room
    for place in ranked:
        sentence = sentences[place]
        shortest = sentence.forms[-1]
        length = lengths[shortest]
        if length <= left or sentence.importance == OPENING:
            chosen[place] = shortest, length
            left -= length
    first, *others = chosen
    for place in (*others, first, *rounding):
        stands, had = chosen.get(place, ("", 0))
        for form in sentences[place].forms:
            if form == stands:
                break
            length = lengths[form]
            if length - had <= left:
                chosen[place] = form, length
                left -= length - had
                break
    return " ".join([chosen[place][0] for place in sorted(chosen)]), room - left


@lru_cache(maxsize=10_000)
def _ranked(importances: tuple[float, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Places of the sentences, the most important first: those that say something, and those that round off."""
    ranked = sorted(range(len(importances)), key=lambda place: -importances[place])
    return (
        tuple(place for place in ranked if importances[place] > ROUNDING_OFF),
        tuple(place for place in ranked if importances[place] <= ROUNDING_OFF),
    )


def plan(record: Mapping[str, Any], granularity: Granularity, wording: int, seed: int) -> list[Sentence]:
    """The sentences of a caption in reading order, before any budget.

    Raises:
        UsageError: there is no such granularity or wording.
        DataError: the record holds a value outside the vocabulary.
    """
    _check(granularity, wording)
    return _Facts(record).sentences(granularity, wording, seed)


def _check(granularity: str, wording: int) -> None:
    if granularity not in GRANULARITIES:
        raise UsageError(f"granularity {granularity!r}: known are {', '.join(GRANULARITIES)}")
    if not 0 <= wording < MAX_WORDINGS:
        raise UsageError(f"wording {wording}: there are {MAX_WORDINGS}, counted from 0")


# sentence(eye, pick): ``pick`` chooses among its wordings.
_Topic = Callable[[Description, int], Sentence | None]

# (topic, what the record says of it, how its words were picked) → its sentence: some thousands recur.
_SENTENCES: dict[tuple[Any, ...], Sentence | None] = {}
_MOST_SENTENCES = 100_000  # about 100 MB

_OF_DISC, _OF_VESSELS, _OF_MACULA = frozenset(_DISC), frozenset(_VESSELS), frozenset(_MACULA)
_OF_DISEASES, _OF_LOOKED_FOR = frozenset(_DISEASES), frozenset(_LOOKED_FOR)
_ELSEWHERE = frozenset(_PLACED - set(_LESIONS))


class _Facts:
    """What a record says of each topic, as far as the topic's sentence depends on it: equal facts, equal sentences."""

    def __init__(self, record: Mapping[str, Any]):
        self._identity = str(record.get("image_id") or "")
        self._eye = eye = describe(record)
        told = frozenset(_told(eye))
        self._salient = tuple(sorted(told, key=_gravity)[:3])
        self._opening = (eye.eye, eye.disc_side, eye.grade, eye.glaucoma)
        drusen = _amount(eye, "drusen") if "drusen" in told else None
        amounts = tuple([_amount(eye, code) for code in _AMOUNTS if code in told and code != "drusen"])
        plain = eye.findings == ()
        looked_for = eye.supports() & _OF_LOOKED_FOR if eye.complete else None
        ratio = None if eye.vcdr is None else f"{eye.vcdr:.1f}"
        # Topics in reading order, with the number of their wordings and what they depend on.
        self._fine: tuple[tuple[_Topic, int, tuple[Any, ...]], ...] = (
            (_quality, 3, (eye.quality, eye.artefacts)),
            (_disc, 6, (told & _OF_DISC, eye.complete)),
            (_cup, 3, (ratio, eye.cup)),
            (_vessels, 3, (told & _OF_VESSELS, eye.tortuous, eye.narrow_arterioles, eye.complete)),
            (_macula, 2, (told & _OF_MACULA, eye.dme, eye.macula_side, eye.complete, drusen)),
            (_lesions, 9, (told - _ELSEWHERE, amounts, eye.haemorrhage_quadrants == 4)),
            (_diseases, 3, (told & _OF_DISEASES,)),
            (_absent, 2, (plain, eye.grade, eye.glaucoma, eye.dme, looked_for)),
            (_conclusion, 2, (plain, eye.grade, eye.glaucoma)),
            (_background, 2, (eye.tone, eye.tessellation, "tessellated_fundus" in told)),
        )

    def sentences(self, granularity: Granularity, wording: int, seed: int) -> list[Sentence]:
        """The sentences in reading order."""
        request = (seed, self._identity, granularity, wording)
        hedge, glaucoma, *picks = _picks(*request)
        of_opening = (_way(*request), hedge % 4, glaucoma % 2, self._salient if granularity == "coarse" else ())
        key: tuple[Any, ...] = (_opening, self._opening, of_opening)
        told = [_SENTENCES[key] if key in _SENTENCES else _remembered(key, _opening(self._eye, *of_opening))]
        if granularity == "fine":
            for (topic, wordings, facts), pick in zip(self._fine, picks, strict=False):
                key = (topic, facts, pick % wordings)
                told.append(
                    _SENTENCES[key] if key in _SENTENCES else _remembered(key, topic(self._eye, pick % wordings))
                )
        return [sentence for sentence in told if sentence is not None]


def _remembered(key: tuple[Any, ...], sentence: Sentence | None) -> Sentence | None:
    if len(_SENTENCES) >= _MOST_SENTENCES:
        _SENTENCES.clear()
    _SENTENCES[key] = sentence
    return sentence


def _opening(eye: Description, way: tuple[int, int], hedge: int, of_glaucoma: int, salient: Sequence[str]) -> Sentence:
    """Modality, laterality and side of the disc, grade, glaucoma; in a coarse caption also the gravest findings."""
    grade, glaucoma = _grade(eye, hedge, rich=True), _glaucoma(eye, of_glaucoma, rich=True)
    short_grade, short_glaucoma = _grade(eye, hedge, rich=False), _glaucoma(eye, of_glaucoma, rich=False)
    # Findings are left out only where something else is left to say of the eye.
    counts = [n for n in (3, 2, 1) if n <= len(salient)]
    if grade or glaucoma or not salient:
        counts.append(0)
    seen = []
    for n in counts:
        findings, brief = _listed(tuple(salient[:n]), True), _listed(tuple(salient[:n]), False)
        seen.append((_joined(grade, findings, glaucoma), _joined(short_grade, brief, short_glaucoma)))
    return _opening_of(eye, way, seen)


def opening(
    eye: Description,
    seen: Sequence[tuple[str, str]],
    *,
    identity: str,
    granularity: Granularity,
    wording: int,
    seed: int,
) -> Sentence:
    """The sentence that stands first, for captions whose other words are not the template's.

    Args:
        eye: its laterality and the side of its disc are told.
        seen: what the picture shows, each time in full and in short, the most telling first; "": nothing.
        identity, granularity, wording, seed: pick one of the MAX_WORDINGS ways to put it, as for a template's caption.
    """
    return _opening_of(eye, _way(seed, identity, granularity, wording), seen)


def _opening_of(eye: Description, way: tuple[int, int], seen: Sequence[tuple[str, str]]) -> Sentence:
    modality, structure = way
    forms = []
    for rich, short in seen:
        forms.append(_rich_opening(eye, _MODALITIES[modality], structure, rich))
        forms.append(_short_opening(eye, _SHORT_MODALITIES[modality], structure, short))
    return Sentence("opening", tuple(forms), OPENING)


def _one_of(options: Sequence[str], pick: int) -> str:
    return options[pick % len(options)]


# Findings worth a place in a single sentence, the gravest first; those that stand nowhere come last, by their names.
_GRAVITY = {
    code: place for place, code in enumerate((*_DISEASES, *_LESIONS, *_MACULA, *_DISC, *_VESSELS, *_BACKGROUND))
}


def _gravity(code: str) -> tuple[int, str]:
    return _GRAVITY.get(code, len(_GRAVITY)), code


def _told(eye: Description) -> set[str]:
    """The findings to tell: those of the record, less what another says more exactly."""
    found = set(eye.findings or ())
    if eye.dme:
        found.add("macular_oedema")
    if eye.grade is not None and eye.grade > 0:
        found -= {"diabetic_retinopathy", "suspected_diabetic_retinopathy"}
    if found & {"dry_amd", "wet_amd"}:
        found.discard("amd")
    return found


def _grade(eye: Description, pick: int, rich: bool) -> str:
    if eye.grade is None:
        return ""
    if eye.grade == 0:  # the standard's own words are hedged already
        return ICDR_GRADES[0]
    return f"{_one_of(_GRADED_RICH if rich else _GRADED_SHORT, pick)} {ICDR_GRADES[eye.grade]}"


def _glaucoma(eye: Description, pick: int, rich: bool) -> str:
    if eye.glaucoma is None:
        return ""
    return _one_of((_GLAUCOMA_RICH if rich else _GLAUCOMA_SHORT)[eye.glaucoma], pick)


def _joined(grade: str, findings: str, glaucoma: str) -> str:
    """The three noun phrases in one: "but" turns from what is ruled out to what is there."""
    text = grade
    if findings:
        text += f" {'but' if grade.startswith('no ') else 'with'} {findings}" if grade else findings
    if not glaucoma:
        return text
    if not text:
        return glaucoma
    if grade.startswith("no ") and not findings and not glaucoma.startswith("no "):
        return f"{text} but {glaucoma}"
    return f"{text}{',' if ' and ' in text else ''} and {glaucoma}"


def _rich_opening(eye: Description, modality: str, structure: int, seen: str) -> str:
    subject = f"the {eye.eye} eye" if eye.eye else "the retina"
    disc = f"the optic disc {_place(eye.disc_side)}" if eye.disc_side else ""
    lying = disc.replace("disc ", "disc lying ")
    match structure:
        case 0:
            return _sentence(
                f"{modality} of {subject}", f", with {disc}" if disc else "", f", showing {seen}" if seen else ""
            )
        case 1:
            verb = f"shows {seen}" if seen else f"is of {subject}"
            of = f" of {subject}" if seen else ""
            return _sentence(f"this {modality}{of} {verb}", f", with {disc}" if disc else "")
        case 2:
            return _sentence(f"{modality} showing {subject}", f", {lying}" if disc else "", f": {seen}" if seen else "")
        case _:
            verb = f"shows {seen}" if seen else "is seen"
            return _sentence(f"{subject} in this {modality} {verb}", f", {lying}" if disc else "")


def _short_opening(eye: Description, modality: str, structure: int, seen: str) -> str:
    subject = f"{eye.eye} eye" if eye.eye else "retina"
    disc = f", disc {_place(eye.disc_side)}" if eye.disc_side else ""
    match structure:
        case 0:
            return _sentence(f"{modality} of the {subject}{disc}", f", {seen}" if seen else "")
        case 1:
            return _sentence(f"{subject}, {modality}{disc}", f": {seen}" if seen else "")
        case 2:
            return _sentence(f"{subject} on {modality}{disc}", f", with {seen}" if seen else "")
        case _:
            return _sentence(f"{modality}, {subject}{disc}", f", showing {seen}" if seen else "")


def _place(side: str | None) -> str:
    return "near the centre" if side == "centre" else f"on the {side}"


def _sentence(*parts: str) -> str:
    text = "".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _list(items: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _phrase(code: str, rich: bool = True) -> str:
    """A finding as it reads inside a sentence."""
    if not rich and code in _SHORT_PHRASES:
        return _SHORT_PHRASES[code]
    return _PHRASES.get(code, FINDINGS[code])


def _in_list(code: str, rich: bool = True) -> str:
    """A finding among others: diseases carry their own hedge."""
    phrase = _phrase(code, rich)
    hedged = code not in _DISEASES or code in _NEED_NO_HEDGE or "suggestive" in phrase
    return phrase if hedged else f"probable {phrase}"


@lru_cache(maxsize=10_000)
def _listed(codes: tuple[str, ...], rich: bool) -> str:
    return _list([_in_list(code, rich) for code in codes])


def _amount(eye: Description, code: str, looks: bool = False) -> str:
    """A lesion with its number in words, where it was counted, and how it looks."""
    phrase = _LOOKS[code] if looks and code in _LOOKS else _phrase(code)
    count = eye.counts.get(code, 0)
    if count < 1:
        return phrase
    few, several = _AMOUNTS[code]
    return f"{'a few' if count <= few else 'several' if count <= several else 'numerous'} {phrase}"


def _quality(eye: Description, pick: int) -> Sentence | None:
    flaws = _list(
        [
            {"blur": "slight blur", "haze": "a hazy veil", "glow": "a bright glow at the border"}[a]
            for a in eye.artefacts
        ]
    )
    if eye.quality is None:
        if not flaws:
            return None
        return Sentence("quality", (f"The picture shows {flaws}.", _sentence(f"with {flaws}")), 50)
    rich = _one_of(
        (
            f"Image quality appears {eye.quality}",
            f"The picture is of {eye.quality} quality",
            f"The quality of the image is {eye.quality}",
        ),
        pick,
    )
    forms = [f"{rich}, with {flaws}." if flaws else f"{rich}."]
    forms.append(f"{eye.quality.capitalize()} image quality{f' with {flaws}' if flaws else ''}.")
    return Sentence("quality", tuple(forms), 30 if eye.quality == "good" and not flaws else 60)


def _disc(eye: Description, pick: int) -> Sentence | None:
    found = [code for code in _DISC if code in _told(eye)]
    if not found:
        if not eye.complete:
            return None
        forms = (_one_of(("No swelling or pallor of the optic disc can be seen.", "No disc swelling is seen."), pick),)
        return Sentence("disc", forms, 12)
    start = _one_of(("The optic disc shows", "The optic nerve head appears to show", "The disc region shows"), pick)
    rich = f"{start} {_list([_phrase(code) for code in found])}."
    short = [f"The disc shows {_list([_phrase(code, rich=False) for code in found[:n]])}." for n in (len(found), 1)]
    return Sentence("disc", _distinct(rich, *short), 78)


def _cup(eye: Description, pick: int) -> Sentence | None:
    if eye.vcdr is None:
        return None
    ratio = f"{eye.vcdr:.1f}"
    size = "of average size" if eye.cup == "average" else eye.cup
    rich = _one_of(
        (
            f"The cup appears {size}, with a vertical cup-to-disc ratio of about {ratio}.",
            f"The vertical cup-to-disc ratio is about {ratio}; the cup appears {size}.",
            f"The optic cup looks {size}, the vertical cup-to-disc ratio being near {ratio}.",
        ),
        pick,
    )
    return Sentence("cup", (rich, f"The cup-to-disc ratio is about {ratio}.", f"Cup-to-disc ratio about {ratio}."), 89)


def _vessels(eye: Description, pick: int) -> Sentence | None:
    found = [code for code in _VESSELS if code in _told(eye)]
    tortuous = eye.tortuous or "vessel_tortuosity" in found
    signs = [_phrase(code) for code in found if code != "vessel_tortuosity"]
    if eye.narrow_arterioles:
        signs.append("narrow arterioles")
    vessels = _one_of(("The retinal vessels", "The vessels", "Arterioles and venules"), pick)
    if tortuous:
        forms = [
            f"{vessels} appear tortuous" + (f", with {_list(signs)}." if signs else "."),
            "The vessels are tortuous.",
        ]
        if found and found != ["vessel_tortuosity"]:
            forms[1:] = [f"Tortuous vessels with {_list(signs)}."]
    elif signs:
        forms = [f"{vessels} show {_list(signs)}.", f"The vessels show {signs[0]}."]
    elif eye.complete:
        forms = [f"{vessels} appear regular in course and calibre.", "The vessels appear regular."]
    else:
        return None
    return Sentence("vessels", _distinct(*forms), 70 if found or tortuous else 25)


def _macula(eye: Description, pick: int) -> Sentence | None:
    found = [code for code in _MACULA if code in _told(eye)]
    ruled_out = eye.dme is False and "macular_oedema" not in found
    lies = f"lies {_toward(eye.macula_side)}" if eye.macula_side else ""
    if found:
        signs, seen = (
            ["signs of macular oedema" if c == "macular_oedema" else _amount(eye, c, looks) for c in found]
            for looks in (False, True)
        )
        brief = ["macular oedema" if c == "macular_oedema" else _phrase(c, rich=False) for c in found]
        shows = _one_of(("shows", "appears to show"), pick)
        tail = ", without macular oedema" if ruled_out else ""
        rich = f"The macula {f'{lies} and ' if lies else ''}{shows}"
        forms = [
            f"{rich} {_list(seen)}{tail}.",
            f"{rich} {_list(signs)}{tail}.",
            f"The macula shows {_list(signs)}.",
            *(f"The macula shows {_list(brief[:n])}." for n in (len(brief), 1)),
        ]
        return Sentence("macula", _distinct(*forms), 85)
    if eye.complete:
        plain = _one_of(("appears unremarkable", "shows no visible lesion"), pick)
        forms = [f"The macula {f'{lies} and ' if lies else ''}{plain}.", f"The macula {plain}."]
        return Sentence("macula", _distinct(*forms), 28)
    if ruled_out:
        return Sentence("macula", ("There is no sign of macular oedema.", "No macular oedema."), 28)
    return None


def _toward(side: str | None) -> str:
    return "near the centre" if side == "centre" else f"to the {side} of the centre"


def _lesions(eye: Description, pick: int) -> Sentence | None:
    told = _told(eye)
    found = [code for code in _LESIONS if code in told] + sorted(told - _PLACED)
    if not found:
        return None
    counted = [_amount(eye, code) for code in found]
    spread, seen = list(counted), [_amount(eye, code, looks=True) for code in found]
    if "haemorrhage" in found and eye.haemorrhage_quadrants == 4:
        for lesions in (spread, seen):
            lesions[found.index("haemorrhage")] += " in all four quadrants"
    start = _one_of(("The retina shows", "Visible lesions include", "The picture appears to show"), pick)
    brief = _one_of(("The retina shows", "Seen:", "There is evidence of"), pick // 3)
    forms = [f"{start} {_list(lesions)}." for lesions in (seen, spread, counted)]
    forms += [f"{brief} {_list(counted[:n])}." for n in (len(found), 3, 2) if n <= len(found)]
    forms += [f"{brief} {_list([_phrase(c, rich=False) for c in found[:n]])}." for n in (4, 3, 2, 1) if n <= len(found)]
    return Sentence("lesions", _distinct(*forms), 90)


def _diseases(eye: Description, pick: int) -> Sentence | None:
    told = _told(eye)
    found = [code for code in _DISEASES if code in told]
    if not found:
        return None
    # The opening of the phrase hedges, so the phrases need no hedge of their own.
    names = [_SHORT_PHRASES.get(code) or _phrase(code) for code in found]
    start = _one_of(
        ("The appearance is suggestive of", "The picture would be in keeping with", "There are features of"), pick
    )
    forms = [f"{start} {_list(names[:n])}." for n in (len(names), 2, 1) if n <= len(names)]
    return Sentence("diseases", _distinct(*forms, f"Features of {names[0]}."), 88)


def _absent(eye: Description, pick: int) -> Sentence | None:
    """What was looked for and is not there: only where the record says that it was."""
    seen = _one_of(("can be seen", "can be made out"), pick)
    if eye.findings == () and eye.grade in (None, 0) and eye.glaucoma in (None, "no") and not eye.dme:
        rich = f"No microaneurysms, haemorrhages or exudates {seen}."
        return Sentence("absent", (rich, "No retinal lesions are seen.", "No lesions are seen."), 55)
    if eye.complete:
        present = eye.supports()
        absent = [code for code in _LOOKED_FOR if code not in present and code in DIABETIC_LESIONS]
        if not absent:
            return None
        names = [_phrase(code, rich=False) for code in absent[:3]]
        return Sentence("absent", (f"No {_either(names)} {seen}.", f"No {names[0]} {seen}."), 20)
    if eye.findings == ():
        return Sentence("absent", (f"No other abnormality {seen}.",), 20)
    return None


def _either(items: Sequence[str]) -> str:
    return " or ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _conclusion(eye: Description, pick: int) -> Sentence | None:
    """The reader's impression, where a rich budget lets the paper's order end on it."""
    graded = ICDR_GRADES[eye.grade] if eye.grade else ""
    glaucoma = {"glaucoma": "glaucomatous damage", "suspect": "possible glaucoma"}.get(eye.glaucoma or "", "")
    if graded or eye.glaucoma == "glaucoma":
        start = _one_of(("Overall, the picture would be in keeping with", "Overall, this suggests"), pick)
        return Sentence("conclusion", (f"{start} {_list([part for part in (graded, glaucoma) if part])}.",), 10)
    if eye.findings == () and eye.grade == 0 and eye.glaucoma == "no":
        return Sentence("conclusion", ("Overall, the fundus appears within normal limits.",), 10)
    return None


def _background(eye: Description, pick: int) -> Sentence | None:
    degree = {"slight": "slight tessellation", "marked": "marked tessellation"}.get(eye.tessellation or "")
    if degree is None and "tessellated_fundus" in (eye.findings or ()):
        degree = "tessellation"
    if eye.tone is None:
        return None if degree is None else Sentence("background", (f"The background shows {degree}.",), 65)
    colour = _one_of((f"The background is {eye.tone}", f"The fundus has a background tone of {eye.tone}"), pick)
    short = f"{eye.tone.capitalize()} background"
    if degree is None:
        return Sentence("background", (f"{colour}.", f"{short}."), 65)
    return Sentence("background", (f"{colour}, with {degree}.", f"{short} with {degree}.", f"{short}."), 65)


def _distinct(*forms: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(forms))
