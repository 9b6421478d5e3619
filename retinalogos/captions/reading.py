"""Reads a caption back: which eye, grade, glaucoma status and findings it states, and which it rules out.

Patterns of the field's own terms, British and American spelling, and negation by cue and scope after Chapman
et al., "A simple algorithm for identifying negated findings and diseases in discharge summaries" (NegEx), J Biomed
Inform 2001, 34(5):301. It reads plain reporting English; what it does not recognise it does not report.
"""

import re
from dataclasses import dataclass

from retinalogos.cohort.findings import FINDINGS

# A mention: the codes of findings that it may mean (more than one where the wording leaves it open).
Mention = tuple[str, ...]

# "No lesions", "within normal limits": a statement about every finding at once.
ANY: Mention = ("*",)

_STAGES = {"mild": 1, "moderate": 2, "severe": 3}
_NON_PROLIFERATIVE = r"non[- ]?proliferative (?:diabetic )?retinopathy|npdr"

_VEIN_OCCLUSIONS = ("branch_retinal_vein_occlusion", "central_retinal_vein_occlusion", "vascular_occlusion")
_ARTERY_OCCLUSIONS = (
    "branch_retinal_artery_occlusion",
    "central_retinal_artery_occlusion",
    "cilioretinal_artery_occlusion",
    "vascular_occlusion",
)

# Specific before general: the first that matches at a place is taken. Texts are read in lower case.
_PATTERNS: list[tuple[str, Mention]] = [
    (r"ha?emorrhagic pigment epithelial detachment", ("haemorrhagic_pigment_epithelial_detachment",)),
    (r"ha?emorrhagic retinopathy", ("haemorrhagic_retinopathy",)),
    (r"vitreous ha?emorrhag\w+", ("vitreous_haemorrhage",)),
    (r"(?:pre-?retinal|subhyaloid) ha?emorrhag\w+", ("preretinal_haemorrhage",)),
    (r"dis[ck] ha?emorrhag\w+", ("disc_haemorrhage", "haemorrhage")),
    (r"ha?emorrhag\w+", ("haemorrhage",)),
    (r"micro-?aneurysms?", ("microaneurysm",)),
    (r"(?:hard|lipid) exudat(?:es?|ion)", ("hard_exudate",)),
    (r"soft exudat(?:es?|ion)|cotton[- ]wool(?: spots?)?", ("soft_exudate",)),
    (r"exudat(?:es?|ion)", ("hard_exudate", "soft_exudate", "exudate")),
    (r"macro-?aneurysms?", ("macroaneurysm",)),
    (r"intra-?retinal micro-?vascular abnormalit\w+|irmas?", ("irma",)),
    (r"venous beading|beaded veins?|beading of the veins?", ("venous_beading",)),
    (
        r"choroidal neovasculari[sz]ation|choroidal neovascular membrane",
        ("choroidal_neovascularisation", "wet_amd", "pathological_myopia"),
    ),
    (r"neovasculari[sz]ation|new vessels?", ("neovascularisation",)),
    (r"laser(?: photocoagulation)? (?:scars?|spots?|marks?|burns?)|photocoagulation(?: scars?)?", ("laser_scar",)),
    (r"macular o?edema", ("macular_oedema",)),
    (r"drusen", ("drusen",)),
    (r"(?:dry|non-?exudative|non-?neovascular|atrophic) (?:age-related macular degeneration|amd)", ("dry_amd",)),
    (r"(?:wet|exudative|neovascular) (?:age-related macular degeneration|amd)", ("wet_amd",)),
    (r"age-related macular degeneration|amd", ("dry_amd", "wet_amd", "amd")),
    (r"cataracts?|lens opacit\w+", ("cataract",)),
    (r"hypertensive (?:retinopathy|(?:vascular |vessel )?changes?)", ("hypertensive_retinopathy",)),
    (
        r"(?:pathologic(?:al)?|degenerative) myopia|myopic (?:maculopathy|degeneration|changes?)",
        ("pathological_myopia",),
    ),
    (r"tess?ellat\w+(?: (?:fundus|background))?|tigroid", ("tessellated_fundus",)),
    (r"epi-?retinal membranes?|macular pucker", ("epiretinal_membrane",)),
    (r"macular holes?", ("macular_hole",)),
    (r"myelinated (?:retinal )?nerve fib(?:re|er)s?", ("myelinated_nerve_fibre",)),
    (r"branch (?:retinal )?vein occlusion|brvo", ("branch_retinal_vein_occlusion",)),
    (r"central (?:retinal )?vein occlusion|crvo", ("central_retinal_vein_occlusion",)),
    (r"branch (?:retinal )?artery occlusion|brao", ("branch_retinal_artery_occlusion",)),
    (r"central (?:retinal )?artery occlusion|crao", ("central_retinal_artery_occlusion",)),
    (r"cilioretinal artery occlusion", ("cilioretinal_artery_occlusion",)),
    (r"(?:retinal )?vein occlusion", _VEIN_OCCLUSIONS),
    (r"(?:retinal )?artery occlusion", _ARTERY_OCCLUSIONS),
    (r"(?:retinal )?vascular occlusion", (*_VEIN_OCCLUSIONS, *_ARTERY_OCCLUSIONS)),
    (r"retinitis pigmentosa", ("retinitis_pigmentosa",)),
    (r"optic (?:nerve |dis[ck] )?atrophy", ("optic_atrophy",)),
    (
        r"(?:optic )?dis[ck] pallor|pallor of the (?:optic )?dis[ck]|pale (?:optic )?dis[ck]",
        ("disc_pallor", "optic_atrophy"),
    ),
    (r"tilted (?:optic )?dis[ck]", ("tilted_disc",)),
    (r"increased cup-to-disc ratio|enlarged (?:optic )?cup", ("increased_cup_disc",)),
    (r"(?:optic )?dis[ck] pit maculopathy", ("disc_pit_maculopathy",)),
    (r"(?:anterior )?ischa?emic optic neuropathy", ("ischaemic_optic_neuropathy",)),
    (r"optociliary shunt(?: vessels?)?", ("optociliary_shunt",)),
    (r"geographic atrophy", ("geographic_atrophy", "dry_amd")),
    (r"retinal arterial embol\w+|embolus|hollenhorst plaque", ("retinal_embolus",)),
    (r"chorioretinal scars?", ("chorioretinal_scar",)),
    (r"macular scars?", ("macular_scar",)),
    (r"choroidal na?evus", ("choroidal_naevus",)),
    (r"myopic fundus", ("myopic_fundus", "pathological_myopia")),
    (r"changes of the retinal pigment epithelium|pigmentary changes", ("rpe_changes",)),
    (r"retinal vasculitis|vasculitis", ("vasculitis",)),
    (r"chorioretinitis", ("chorioretinitis",)),
    (
        r"(?:optic )?dis[ck] (?:swelling|o?edema)|papillo?edema|swelling of the (?:optic )?dis[ck]|swollen dis[ck]",
        ("disc_oedema",),
    ),
    (r"(?:rim )?notch\w*(?: of the (?:neuroretinal )?rim)?", ("rim_notch",)),
    (r"peri-?papillary atrophy", ("peripapillary_atrophy",)),
    (
        r"(?:retinal )?nerve fib(?:re|er) layer (?:defects?|loss|thinning)|rnfl (?:defects?|loss|thinning)",
        ("nerve_fibre_layer_defect",),
    ),
    (r"arteri?o?sclero\w+|arteriolosclerosis|(?:copper|silver)[- ]wiring", ("arteriosclerosis",)),
    (r"chorio-?retinal atroph\w+", ("chorioretinal_atrophy", "pathological_myopia")),
    (r"retinal detachment|detached retina", ("retinal_detachment",)),
    (r"vitreous degeneration", ("vitreous_degeneration",)),
    (r"asteroid hyalosis", ("asteroid_hyalosis",)),
    (r"central serous (?:chorio)?retinopathy", ("central_serous_chorioretinopathy",)),
    (r"maculopathy(?: of unstated kind)?", ("maculopathy",)),
    (r"(?:refractive )?media (?:opacit\w+|haze)|opacit\w+ of the (?:refractive )?media", ("media_opacity", "cataract")),
    (r"tortuous(?: (?:retinal )?(?:vessels?|veins?|arter\w+))?|tortuosity", ("vessel_tortuosity",)),
    (r"sheath(?:ed|ing)(?: (?:\(white\) )?vessels?)?|white vessels?", ("vessel_sheathing",)),
    (r"retinal atrophy|atrophic (?:retinal )?changes?", ("retinal_atrophy", "chorioretinal_atrophy")),
    (r"retinal folds?", ("retinal_fold",)),
    (r"hypertrophy of the (?:retinal pigment epithelium|rpe)", ("rpe_hypertrophy",)),
    (r"(?:other|another|further|additional|unspecified) (?:retinal )?abnormalit\w+", ("other",)),
    (r"(?:focal |retinal |fundus )*lesions?|abnormalit\w+", ANY),
]


def _and_plain_names() -> list[tuple[str, Mention]]:
    """The patterns and, after them, the plain name of every code of the vocabulary that none of them means.

    Diabetic retinopathy, stated or suspected, is read with the grade.
    """
    known = {code for _, codes in _PATTERNS for code in codes} | {
        "diabetic_retinopathy",
        "suspected_diabetic_retinopathy",
    }
    return _PATTERNS + [(re.escape(name.lower()), (code,)) for code, name in FINDINGS.items() if code not in known]


_MENTIONS = _and_plain_names()
_FINDING = re.compile(
    r"\b(?=\w)(?:" + "|".join(f"(?P<f{i}>{pattern})" for i, (pattern, _) in enumerate(_MENTIONS)) + r")(?![\w-])"
)
_RETINOPATHY = re.compile(
    rf"\b(?:(?P<stage>mild|moderate|severe|very severe) (?:to (?:moderate|severe) )?(?:{_NON_PROLIFERATIVE})"
    rf"|(?P<unstaged>{_NON_PROLIFERATIVE})"
    r"|(?P<proliferative>(?<!non)(?<!non[- ])proliferative (?:diabetic )?retinopathy|pdr)"
    r"|(?:icdr|dr|retinopathy) (?:grade|stage|level)(?: of)? (?P<number>[0-4])(?!\.?\d)"
    r"|(?P<suspected>(?:suspected|possible) diabetic retinopathy)"
    r"|(?P<any>diabetic retinopathy))\b",
)
_GLAUCOMA = re.compile(
    r"\b(?:(?P<suspect>suspected glaucoma|glaucoma suspect|(?:suspicious|suspicion|suspected) (?:for|of) glaucoma"
    r"|possible glaucoma)|(?P<any>glaucoma(?:tous)?))\b",
)
_EYE = re.compile(
    r"\b(?:(?P<left>left (?:eye|fundus)|oculus sinister)|(?P<right>right (?:eye|fundus)|oculus dexter))\b"
)
_DISC_SIDE = re.compile(
    r"\b(?:dis[ck]|nerve head)\b(?:[^.;:!?,]|,(?! (?:with|and|the macula|the fovea)\b)){0,40}?"
    r"\b(?P<side>left|right|centre|center|central|middle)\b(?!(?: |-)(?:eye|fundus))",
)
_NORMAL = re.compile(
    r"\b(?:normal (?:fundus|retina)|(?:fundus|retina) (?:is|appears|looks) (?:entirely )?normal"
    r"|within normal limits)\b",
)
_REGION = re.compile(r"\b(?:macula\w*|fove\w+|dis[ck]|nerve head|vessels?|arter\w+|veins?|periphery)\b")

# The verb or preposition between the ratio and its number: "ratio of about 0.8", "ratio is near 0.8".
_CUP_RATIO = re.compile(
    r"\bcup[- ](?:to[- ])?dis[ck] ratio\b(?: (?:is|of|being|appears|measures|about|near|around|approximately|roughly))*"
    r"[:=]? ?(?P<ratio>[01]?\.\d+|1\.0)(?!\d*%)",
)

_SENTENCE_END = re.compile(r"[.;:!?](?=\s|$)")
_NEGATION = re.compile(r"\b(?:no|not|without|absence of|free of|neither|nor|lacks?|lacking|rather than)\b")
# A negation reaches to the end of the clause, or to where the sentence turns to what is there.
_TURN = re.compile(
    r"\b(?:but|however|although|though|yet|while|whereas|except|showing|shows?|with)\b"
    r"|(?:\band\b|,)\s+(?:(?:a|an|the|some|several|numerous|few|likely|probable|suspected|also)\s+)*"
    r"(?:signs?|features|findings|changes|appearances?|picture|evidence|likely|probable|suspected|there|mild|moderate"
    r"|severe|scattered|numerous|several|optic|macula|disc|vessels)\b",
)
_VERB = re.compile(
    r"\b(?:is|are|was|were|appears?|seems?|can be|absent|not seen|unlikely|(?<!not )(?<!not be )(?:excluded|ruled out))"
    r"\b(?P<rest>\s+\w+(?:\s+\w+)?)?"
)
_ABSENT = re.compile(r"absent|not(?! (?:excluded|ruled))|unlikely|excluded|ruled out")
# "Hard exudates: none", as in a list.
_LISTED = re.compile(r":\s*(?:none|nil|absent|not seen)\b")


@dataclass(frozen=True)
class Statements:
    """What a caption says.

    Attributes:
        eyes: sides named as "left eye", "right eye".
        disc_sides: where the disc is said to lie: left, right, centre.
        grades: ICDR grades stated (0 for "no diabetic retinopathy").
        unstaged_retinopathy: diabetic retinopathy is stated without its stage.
        glaucoma: no, suspect, glaucoma.
        cup_ratios: cup-to-disc ratios stated.
        present: findings stated.
        absent: findings ruled out; ``ANY`` where all are.
    """

    eyes: frozenset[str]
    disc_sides: frozenset[str]
    grades: frozenset[int]
    unstaged_retinopathy: bool
    glaucoma: frozenset[str]
    cup_ratios: frozenset[float]
    present: frozenset[Mention]
    absent: frozenset[Mention]


def sentences(text: str) -> list[str]:
    """The sentences of ``text``; a decimal point ends none."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part.strip()]


def _negated(clause: str, start: int, end: int) -> bool:
    """Whether the mention ``clause[start:end]`` is ruled out by a cue before it or a verb after it."""
    cues = list(_NEGATION.finditer(clause, 0, start))
    if cues and _TURN.search(clause, cues[-1].end(), start) is None:
        return True
    verb = _VERB.search(clause, end)
    if verb is None:
        return False
    return _ABSENT.match(verb.group(0)) is not None or _ABSENT.match((verb["rest"] or "").strip()) is not None


def read_statements(text: str) -> Statements:
    """What ``text`` states about eye, disc, grade, glaucoma and findings."""
    eyes = {side for side, abbreviation in (("left", r"\bOS\b"), ("right", r"\bOD\b")) if re.search(abbreviation, text)}
    text = _LISTED.sub(" absent", text.lower())
    eyes |= {str(match.lastgroup) for match in _EYE.finditer(text)}
    sides = {
        "centre" if match["side"] in ("center", "central", "middle") else match["side"]
        for match in _DISC_SIDE.finditer(text)
    }
    grades: set[int] = set()
    unstaged = False
    glaucoma: set[str] = set()
    present: set[Mention] = set()
    absent: set[Mention] = set()
    for clause in _SENTENCE_END.split(text):
        for match in _RETINOPATHY.finditer(clause):
            denied = _negated(clause, *match.span())
            if denied:
                # "No proliferative retinopathy" leaves the other grades open; "no diabetic retinopathy" does not.
                grades |= {0} if match["any"] or match["suspected"] else set()
            elif match["stage"]:
                grades.add(_STAGES[match["stage"].removeprefix("very ")])
            elif match["proliferative"]:
                grades.add(4)
            elif match["number"]:
                grades.add(int(match["number"]))
            else:
                unstaged = True
        for match in _GLAUCOMA.finditer(clause):
            if _negated(clause, *match.span()):
                glaucoma.add("no")
            else:
                glaucoma.add("suspect" if match["suspect"] else "glaucoma")
        for match in _FINDING.finditer(clause):
            codes = _MENTIONS[int(str(match.lastgroup)[1:])][1]
            if codes == ANY and _REGION.search(clause):
                continue  # "no lesion at the macula" says nothing of the rest
            if _negated(clause, *match.span()):
                absent.add(codes)
            elif codes != ANY:
                present.add(codes)
        if _NORMAL.search(clause):
            absent.add(ANY)
    return Statements(
        frozenset(eyes),
        frozenset(sides),
        frozenset(grades),
        unstaged,
        frozenset(glaucoma),
        frozenset(float(match["ratio"]) for match in _CUP_RATIO.finditer(text)),
        frozenset(present),
        frozenset(absent),
    )
