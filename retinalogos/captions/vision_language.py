"""Captions by a vision-language model on this machine, or by a language model from the records alone."""

import io
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image, UnidentifiedImageError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from retinalogos.captions.conversation import ModelEngine, Question, Reply
from retinalogos.captions.engine import CaptionResult
from retinalogos.captions.prompts import JudgePrompt, Message, Prompt
from retinalogos.captions.tokens import TokenBudget
from retinalogos.errors import DataError, UsageError
from retinalogos.training.configuration import Precision
from retinalogos.training.device import compute_dtype, device


class SeededSampling(LogitsProcessor):
    """Draws from the model's distribution with a generator for each row, so that no row depends on its neighbours.

    Noise of the Gumbel distribution is added to the scores, and the greatest sum is then a draw from their softmax
    (Gumbel 1954; Maddison et al. 2014, arXiv 1411.0030), so it is used with greedy decoding.

    Args:
        seeds: of the rows.
        temperature: above 0.
    """

    def __init__(self, seeds: Sequence[int], temperature: float):
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows × vocabulary) at the temperature, with noise."""
        noise = torch.stack([torch.empty(scores.shape[1]).exponential_(generator=g) for g in self._generators])
        return scores.float() / self._temperature - noise.log().to(scores.device)


class TransformersEngine(ModelEngine):
    """Asks a model that runs here, a batch of eyes at a time.

    Args:
        model: hub name or folder of any image-text-to-text model; in text-only mode also of a causal language model.
        revision: of the hub name; None: the newest.
        prompt, budget, look, temperature, attempts: see :class:`ModelEngine`.
        batch_size: eyes at a time.
        max_tokens: longest answer.
        precision: auto, float32 or bfloat16.

    Raises:
        UsageError: there is no such model, it cannot be shown pictures and is to look, or it does not take the prompt.
    """

    name = "transformers"

    def __init__(
        self,
        model: str,
        prompt: Prompt | JudgePrompt,
        budget: TokenBudget,
        *,
        revision: str | None,
        look: bool,
        temperature: float,
        attempts: int,
        batch_size: int,
        max_tokens: int,
        precision: Precision,
    ):
        # Where a folder lies on this machine is nobody else's business.
        kept = Path(model).name if Path(model).is_dir() else f"{model}@{revision}" if revision else model
        super().__init__(kept, prompt, budget, look=look, temperature=temperature, attempts=attempts)
        self.batch_size, self.max_tokens = batch_size, max_tokens
        self._device = device()
        try:
            sees = type(AutoConfig.from_pretrained(model, revision=revision)) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
            if look and not sees:
                raise UsageError(f"caption.transformers.model {model} takes no pictures; set caption.look to false")
            kind, reader = (
                (AutoModelForImageTextToText, AutoProcessor) if sees else (AutoModelForCausalLM, AutoTokenizer)
            )
            # Left padding: what is generated must follow the question directly.
            self._processor: Any = reader.from_pretrained(model, revision=revision, padding_side="left")
            dtype = compute_dtype(precision, self._device)
            loaded: Any = kind.from_pretrained(model, revision=revision, dtype=dtype)
        except (OSError, ValueError, ImportError) as error:
            if isinstance(error, UsageError):
                raise
            reason = str(error).splitlines()[0]
            raise UsageError(f"caption.transformers.model {model}: {reason}; give a folder or a hub name") from error
        self._model = loaded.to(self._device).eval()
        self._parts = sees
        self._tokenizer: Any = getattr(self._processor, "tokenizer", self._processor)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        # A report must not end the question, nor hold a place for a picture. (`sanitize_control_tokens` of transformers
        # 5.23 does this too, and fails with the processors of Idefics3 and SmolVLM.)
        control = [token.content for token in self._tokenizer.added_tokens_decoder.values() if token.special]
        self._control = re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))) or "(?!)")
        if (self._processor.chat_template or self._tokenizer.chat_template) is None:
            raise UsageError(
                f"caption.transformers.model {model} has no chat template; give a model tuned to instructions"
            )
        try:
            example = [self._told(message) for message in prompt.messages({})]
            self._processor.apply_chat_template(example, add_generation_prompt=True, tokenize=False)
        except TemplateError as error:
            raise UsageError(
                f"caption.transformers.model {model}: its chat template refuses the prompt ({error}); where it takes "
                'no system message, give a prompt file with the words in `user` and `system: ""`'
            ) from error

    def answered(self, questions: Iterator[Question]) -> Iterator[list[CaptionResult]]:
        """The captions in order, batch by batch; within a batch those with an unusable answer are asked again."""
        while batch := list(islice(questions, self.batch_size)):
            yield from [self.written(*pair) for pair in zip(batch, self._replies(batch), strict=True)]

    def _replies(self, batch: list[Question]) -> list[Reply]:
        replies = [Reply(None)] * len(batch)
        asked: dict[int, list[Message]] = {}
        for row, question in enumerate(batch):
            try:
                asked[row] = self.prompt.messages(question.request.record, self._picture(question))
            except DataError as error:
                replies[row] = Reply(None, str(error))
        open_questions = asked
        for attempt in range(self.attempts):
            if not open_questions:
                break
            seeds = [batch[row].seed_of(attempt) for row in open_questions]
            texts = self._generate(list(open_questions.values()), seeds)
            unusable = {}
            for row, text in zip(open_questions, texts, strict=True):
                try:
                    replies[row] = Reply(self.prompt.read(text))
                except DataError as error:
                    replies[row] = Reply(None, f"no usable answer in {self.attempts} attempts: {error}")
                    unusable[row] = self.prompt.ask_again(asked[row], text, str(error))
            open_questions = unusable
        return replies

    def _picture(self, question: Question) -> Message | None:
        if not self.look or question.request.image is None:
            return None
        try:
            image = Image.open(io.BytesIO(question.request.image())).convert("RGB")
        except UnidentifiedImageError:
            raise DataError(f"image {question.request.image_id} is damaged; run `validate`") from None
        return {"type": "image", "image": image}

    @torch.inference_mode()
    def _generate(self, conversations: list[list[Message]], seeds: list[int]) -> list[str]:
        """What the model says to each conversation."""
        options: dict[str, Any] = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
        if self._parts:
            options["processor_kwargs"] = {"padding": True}
        else:
            options["padding"] = True
        inputs = self._processor.apply_chat_template(
            [[self._told(message) for message in conversation] for conversation in conversations],
            return_tensors="pt",
            **options,
        )
        # Pictures come in float32; a tokenizer alone gives no floats, and takes no dtype.
        inputs = inputs.to(self._device, self._model.dtype) if self._parts else inputs.to(self._device)
        sampling = [SeededSampling(seeds, self.temperature)] if self.temperature > 0 else []
        tokens_bt = self._model.generate(
            **inputs,
            max_new_tokens=self.max_tokens,
            do_sample=False,
            logits_processor=LogitsProcessorList(sampling),
            pad_token_id=self._tokenizer.pad_token_id,
        )
        answers: list[str] = self._tokenizer.batch_decode(
            tokens_bt[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return answers

    def _told(self, message: Message) -> Message:
        """The message as this model's chat template takes it, without words that would be its control tokens."""
        content = message["content"]
        if isinstance(content, str):
            plain = self._control.sub(" ", content)
            return {**message, "content": [{"type": "text", "text": plain}] if self._parts else plain}
        parts = [{**part, "text": self._control.sub(" ", part["text"])} if "text" in part else part for part in content]
        return {**message, "content": parts}
