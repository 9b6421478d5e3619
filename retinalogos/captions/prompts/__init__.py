"""What a model is asked: versioned files of words, and the chat messages that they make of a record.

A prompt file is YAML with the texts of :class:`Prompt`, which asks for captions, or of :class:`JudgePrompt`, which asks
about them; ``$record``, ``$schema``, ``$problem`` and the like are filled in.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any, ClassVar, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from retinalogos.captions.description import Description, describe
from retinalogos.captions.structured import Answer, Text, answer_schema, read_answer, read_object, schema_of
from retinalogos.cohort.deidentify import deidentify_text
from retinalogos.cohort.findings import FINDINGS
from retinalogos.cohort.schema import ICDR_GRADES
from retinalogos.errors import UsageError

Message = dict[str, Any]
_FOLDER = Path(__file__).parent
W = TypeVar("W", bound="_Words")


class _Words(BaseModel):
    """Words that are sent to a model; what they must hold is told by the kind of prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    fields: ClassVar[Mapping[str, set[str]]]

    version: str
    system: str
    user: str

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for name, wanted in self.fields.items():
            template = Template(getattr(self, name))
            if not template.is_valid() or set(template.get_identifiers()) != wanted:
                raise ValueError(f"{name} must hold {', '.join(f'${field}' for field in sorted(wanted))} and no other")
        return self

    @property
    def identity(self) -> str:
        """Version and hash of the words, so that an edit without a new version shows."""
        return f"{self.version}+{hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]}"

    def _asked(self, question: Any) -> list[Message]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": question}]


def _again(words: str, messages: list[Message], answer: str, problem: str) -> list[Message]:
    retry = Template(words).substitute(problem=problem)
    return [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": retry}]


class Prompt(_Words):
    """The words that ask for the description of an eye.

    Attributes:
        version: of the wording, kept with every caption.
        system: who the model is to be; "" for a model whose chat template takes no such message.
        user: the question, with ``$task``, ``$record`` and ``$schema``.
        with_image, text_only: the task, where the model is given the picture and where it is not.
        again: what is said to an answer that cannot be used, with ``$problem``.
    """

    fields = {"user": {"task", "record", "schema"}, "again": {"problem"}}

    with_image: str
    text_only: str
    again: str

    def messages(self, record: Mapping[str, Any], image: Mapping[str, Any] | None = None) -> list[Message]:
        """The question about one eye as chat messages.

        Args:
            record: a cohort row or any part of one; :func:`statement` says what of it is told.
            image: the content part that holds the picture, as the engine's chat template wants it; None: text only.

        Raises:
            DataError: the record holds a value outside the vocabulary.
        """
        text = Template(self.user).substitute(
            task=self.text_only if image is None else self.with_image,
            record=_told(record),
            schema=json.dumps(self.answer_schema(), separators=(",", ":")),
        )
        return self._asked(text if image is None else [dict(image), {"type": "text", "text": text}])

    def ask_again(self, messages: list[Message], answer: str, problem: str) -> list[Message]:
        """The conversation after an answer that could not be used."""
        return _again(self.again, messages, answer, problem)

    def answer_schema(self) -> dict[str, Any]:
        """JSON schema of the answer."""
        return answer_schema()

    def read(self, said: str) -> Answer:
        """See :func:`retinalogos.captions.structured.read_answer`."""
        return read_answer(said)


class Verdict(BaseModel):
    """What a model thinks of a caption: why, and then how surely it contradicts the record."""

    # As the parts of an Answer: keys of the model's own do no harm.
    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_extra={"additionalProperties": False})

    reason: Text = Field(description="the contradiction in one short sentence; empty where there is none")
    contradiction: float = Field(ge=0, le=1, description="how sure it is that the caption contradicts the record")


class JudgePrompt(_Words):
    """The words that ask whether a caption contradicts its record.

    Attributes:
        version, system, again: see :class:`Prompt`.
        user: the question, with ``$record``, ``$caption`` and ``$schema``.
    """

    fields = {"user": {"record", "caption", "schema"}, "again": {"problem"}}

    again: str

    def messages(self, record: Mapping[str, Any], image: Mapping[str, Any] | None = None) -> list[Message]:
        """The question about one caption as chat messages.

        Args:
            record: a cohort row, and the text under ``caption``; the text is told without identifiers.
            image: none is shown.

        Raises:
            DataError: the record holds a value outside the vocabulary.
        """
        return self._asked(
            Template(self.user).substitute(
                record=_told(record),
                caption=deidentify_text(record.get("caption", "")),
                schema=json.dumps(self.answer_schema(), separators=(",", ":")),
            )
        )

    def ask_again(self, messages: list[Message], answer: str, problem: str) -> list[Message]:
        """The conversation after an answer that could not be used."""
        return _again(self.again, messages, answer, problem)

    def answer_schema(self) -> dict[str, Any]:
        """JSON schema of the answer."""
        return schema_of(Verdict)

    def read(self, said: str) -> Verdict:
        """See :func:`retinalogos.captions.structured.read_object`."""
        return read_object(said, Verdict)


def load_prompt(name: str) -> Prompt:
    """A prompt of this package by name (``record-1``), or any by the path of its YAML file.

    Raises:
        UsageError: there is no such prompt, or the file is none.
    """
    return _load(name, Prompt, "record-1")


def load_judge_prompt(name: str) -> JudgePrompt:
    """A judge's prompt of this package by name (``judge-1``), or any by the path of its YAML file.

    Raises:
        UsageError: there is no such prompt, or the file is none.
    """
    return _load(name, JudgePrompt, "judge-1")


def _load(name: str, kind: type[W], example: str) -> W:
    path = _FOLDER / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    try:
        return kind.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError:
        known = ", ".join(sorted(file.stem for file in _FOLDER.glob("*.yaml")))
        raise UsageError(f"prompt {name}: no such file, and the package's prompts are {known}") from None
    except (ValueError, yaml.YAMLError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error).splitlines()[0]
        raise UsageError(f"prompt {path}: {reason}; see {example}.yaml in retinalogos/captions/prompts") from None


def _told(record: Mapping[str, Any]) -> str:
    return json.dumps(statement(record), indent=1, ensure_ascii=False)


def statement(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a model is told of a record: what the eye shows, and the de-identified report.

    Identifiers (image, patient), dates, age, sex, source and the source's own labels are left out: none can be seen,
    and a model cannot repeat what it was not given. What the record does not know is absent.

    Raises:
        DataError: the record holds a value outside the vocabulary.
    """
    eye = describe(record)
    report = record.get("report")
    told = {
        "eye": eye.eye,
        "optic_disc_lies": eye.disc_side,
        "image_quality": eye.quality,
        "image_artefacts": list(eye.artefacts),
        "diabetic_retinopathy": None if eye.grade is None else ICDR_GRADES[eye.grade],
        "macular_oedema": _yes_no(eye.dme),
        "glaucoma": eye.glaucoma,
        "vertical_cup_to_disc_ratio": None if eye.vcdr is None else round(eye.vcdr, 2),
        "findings": None if eye.findings is None else [FINDINGS[code] for code in eye.findings] or "none",
        "no_other_findings": "yes" if eye.complete else None,
        "number_of_lesions": _counts(eye),
        "quadrants_with_haemorrhages": eye.haemorrhage_quadrants,
        "tortuous_vessels": _yes_no(eye.tortuous),
        "narrow_arterioles": _yes_no(eye.narrow_arterioles),
        "background_tone": eye.tone,
        "tessellation": eye.tessellation,
        "report": deidentify_text(report) if report else None,
    }
    return {name: value for name, value in told.items() if value not in (None, [], {})}


def _yes_no(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"


def _counts(eye: Description) -> dict[str, int]:
    """Lesions that were counted and are among the findings."""
    return {FINDINGS[code]: count for code, count in eye.counts.items() if count and code in (eye.findings or ())}
