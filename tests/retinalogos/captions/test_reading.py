"""What a caption states is read back, negation and spelling included."""

import pytest

from retinalogos.captions.reading import ANY, read_statements, sentences


@pytest.mark.parametrize(
    ("text", "eyes"),
    [
        ("Fundus image of the left eye.", {"left"}),
        ("Image of the OD.", {"right"}),
        ("OS, mild blur.", {"left"}),
        ("Right eye, then the left eye.", {"left", "right"}),
        ("The optic disc lies on the left.", set()),
    ],
)
def test_eyes(text, eyes):
    assert read_statements(text).eyes == eyes


@pytest.mark.parametrize(
    ("text", "sides"),
    [
        ("The optic disc lies on the left.", {"left"}),
        ("The optic disk is positioned to the right side of the picture.", {"right"}),
        ("The disc is near the center.", {"centre"}),
        ("Left eye with a clear disc.", set()),
        ("The disc is pale in the left eye.", set()),
        ("Optic disc on the left, macula to the right of the centre.", {"left"}),
    ],
)
def test_disc_sides(text, sides):
    assert read_statements(text).disc_sides == sides


@pytest.mark.parametrize(
    ("text", "grades"),
    [
        ("No apparent diabetic retinopathy.", {0}),
        ("There is no sign of diabetic retinopathy.", {0}),
        ("Mild NPDR is suspected.", {1}),
        ("moderate nonproliferative diabetic retinopathy", {2}),
        ("Severe non proliferative retinopathy.", {3}),
        ("Proliferative diabetic retinopathy.", {4}),
        ("PDR with vitreous hemorrhage.", {4}),
        ("DR grade 2 appears likely.", {2}),
        ("No proliferative diabetic retinopathy.", set()),
        ("Signs of severe non-proliferative diabetic retinopathy.", {3}),
    ],
)
def test_grades(text, grades):
    assert read_statements(text).grades == grades


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("No sign of glaucoma.", {"no"}),
        ("without glaucomatous change", {"no"}),
        ("Suspected glaucoma.", {"suspect"}),
        ("A disc appearance suspicious for glaucoma.", {"suspect"}),
        ("The cup suggests glaucoma.", {"glaucoma"}),
        ("No apparent diabetic retinopathy but signs of glaucoma.", {"glaucoma"}),
        ("no apparent diabetic retinopathy and an appearance suggestive of glaucoma", {"glaucoma"}),
        ("no apparent diabetic retinopathy and no sign of glaucoma", {"no"}),
        ("Glaucoma is unlikely.", {"no"}),
        ("Glaucoma has been ruled out.", {"no"}),
        ("Glaucoma is not excluded.", {"glaucoma"}),
        ("Glaucoma cannot be ruled out.", {"glaucoma"}),
    ],
)
def test_glaucoma(text, status):
    assert read_statements(text).glaucoma == status


@pytest.mark.parametrize(
    ("text", "present", "absent"),
    [
        ("Scattered hemorrhages and cotton-wool spots.", {("haemorrhage",), ("soft_exudate",)}, set()),
        (
            "No haemorrhages, drusen or neovascularization are seen.",
            set(),
            {"haemorrhage", "drusen", "neovascularisation"},
        ),
        ("Microaneurysms are seen, but no drusen.", {("microaneurysm",)}, {"drusen"}),
        ("No drusen, but several microaneurysms.", {("microaneurysm",)}, {"drusen"}),
        ("Haemorrhages are not visible.", set(), {"haemorrhage"}),
        ("Haemorrhages are visible.", {("haemorrhage",)}, set()),
        ("Vitreous haemorrhage is likely.", {("vitreous_haemorrhage",)}, set()),
        ("Preretinal hemorrhage.", {("preretinal_haemorrhage",)}, set()),
        ("Exudates near the fovea.", {("hard_exudate", "soft_exudate", "exudate")}, set()),
        ("The macula shows no lesion; drusen lie elsewhere.", {("drusen",)}, set()),
        ("Drusen: none; haemorrhages: several.", {("haemorrhage",)}, {"drusen"}),
        ("Haemorrhages are near the fovea and drusen are absent.", {("haemorrhage",)}, {"drusen"}),
        ("Epiretinal membrane; no macular hole.", {("epiretinal_membrane",)}, {"macular_hole"}),
    ],
)
def test_findings(text, present, absent):
    said = read_statements(text)
    assert present <= said.present
    assert {code for codes in said.absent for code in codes} == absent


def test_absence_of_everything():
    assert ANY in read_statements("No lesions are seen.").absent
    assert ANY in read_statements("The fundus appears within normal limits.").absent
    assert ANY not in read_statements("No lesions at the macula.").absent


def test_decimals_end_no_sentence():
    assert sentences("The ratio is 0.6. The disc is pink.") == ["The ratio is 0.6.", "The disc is pink."]
