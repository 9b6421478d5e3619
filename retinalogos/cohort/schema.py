"""What a cohort is: one row per eye image, one vocabulary of findings.

The columns follow the Hugging Face image-dataset convention: an image is a struct of ``bytes`` (the
encoded file) and ``path`` (a name). Real and synthetic cohorts have the same columns.
"""

import json

import pyarrow as pa

SCHEMA_VERSION = 1

EYES = ("left", "right")
SEXES = ("female", "male")
SPLITS = ("train", "validation", "test")
GLAUCOMA = ("no", "suspect", "glaucoma")

# International Clinical Diabetic Retinopathy severity scale: Wilkinson et al., Ophthalmology 2003, 110(9):1677.
ICDR_GRADES = (
    "no apparent diabetic retinopathy",
    "mild non-proliferative diabetic retinopathy",
    "moderate non-proliferative diabetic retinopathy",
    "severe non-proliferative diabetic retinopathy",
    "proliferative diabetic retinopathy",
)

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

# Index in a `lesions` map → finding code. The phantom draws those up to preretinal haemorrhage; `exudate` is what data
# sets mark that do not tell hard from soft.
LESION_CLASSES = (
    "none",
    "microaneurysm",
    "haemorrhage",
    "hard_exudate",
    "soft_exudate",
    "neovascularisation",
    "drusen",
    "preretinal_haemorrhage",
    "exudate",
)

# Truth maps, each a PNG of the size of the image; null where the source has none.
MAPS = ("lesions", "vessels", "disc_cup", "fov")
# Least share of a pixel that a class must cover to be kept when a map is made smaller: vessels are thinner than a
# pixel, lesions are small, the disc and the field are large.
LEAST_SHARE = {"lesions": 0.25, "vessels": 0.4, "disc_cup": 0.5, "fov": 0.5}

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),  # first 16 hex digits of sha256 of the pixels
        pa.field("patient_id", pa.string(), nullable=False),  # pseudonym: keyed hash of the source's identifier
        ("eye", pa.string()),  # one of EYES
        ("age", pa.float32()),  # years
        ("sex", pa.string()),  # one of SEXES
        ("dr_grade", pa.int8()),  # ICDR 0-4, index into ICDR_GRADES
        ("dme", pa.int8()),  # diabetic macular oedema: 0 no, 1 yes
        ("glaucoma", pa.string()),  # one of GLAUCOMA
        ("vcdr", pa.float32()),  # vertical cup-to-disc ratio, 0-1
        ("findings", pa.list_(pa.string())),  # codes of findings.FINDINGS; empty list: examined, none; null: unknown
        ("report", pa.string()),  # free text of the source, de-identified
        ("labels", pa.string()),  # the source's own labels, JSON object
        ("quality", pa.float32()),  # 0 (unusable) to 1
        pa.field("split", pa.string(), nullable=False),  # one of SPLITS
        ("duplicate_group", pa.string()),  # image_id of the first of a group of exact or near duplicates, else null
        pa.field("source", pa.string(), nullable=False),  # name of the reader
        ("licence", pa.string()),
        pa.field("width", pa.int32(), nullable=False),  # pixels
        pa.field("height", pa.int32(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),  # of image.bytes
        ("image", _IMAGE),  # never null, but `datasets` decodes nullable fields alone
        ("lesions", _IMAGE),  # index into LESION_CLASSES
        ("vessels", _IMAGE),  # 0 none, 1 artery, 2 vein, 3 crossing or kind unknown
        ("disc_cup", _IMAGE),  # 0 none, 1 disc (rim), 2 cup
        ("fov", _IMAGE),  # 0 outside, 255 inside the field of view
        ("truth", pa.string()),  # JSON of the exact attributes of a phantom eye; null for photographs
        ("generator", pa.string()),  # synthetic rows: name and content hash of the generator
        ("prompt", pa.string()),
        ("seed", pa.int64()),
    ]
)


def _hugging_face_features() -> dict[str, object]:
    features: dict[str, object] = {}
    for field in SCHEMA:
        if field.type == _IMAGE:
            features[field.name] = {"_type": "Image"}
        elif pa.types.is_list(field.type):
            features[field.name] = {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}
        else:
            dtype = {"float": "float32"}.get(str(field.type), str(field.type))
            features[field.name] = {"dtype": dtype, "_type": "Value"}
    return features


# With this metadata ``datasets.load_dataset("parquet", ...)`` decodes the image columns.
ARROW_SCHEMA = SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": _hugging_face_features()}})})

PIXEL_COLUMNS = ("image", *MAPS)
TABLE_COLUMNS = tuple(name for name in SCHEMA.names if name not in PIXEL_COLUMNS)
