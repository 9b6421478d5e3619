"""Captions by a model server that speaks the OpenAI protocol, such as vLLM: many questions at a time, each asked once.

Records are confidential, so an endpoint outside the own network is refused unless it is allowed in so many words.
"""

import asyncio
import base64
import hashlib
import io
import ipaddress
import json
import math
import os
import random
import socket
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
from PIL import Image, UnidentifiedImageError

from retinalogos.captions.conversation import ModelEngine, Question, Reply
from retinalogos.captions.engine import CaptionResult
from retinalogos.captions.prompts import JudgePrompt, Message, Prompt
from retinalogos.captions.tokens import TokenBudget
from retinalogos.errors import DataError, UsageError

# What may pass by itself: request timeout, too early, too many requests, and the faults of a server or its gateway.
_MAY_PASS = {408, 425, 429, 500, 502, 503, 504}
# The same for every question: no address, no right, no such model.
_MISCONFIGURED = {401, 403, 404, 405}
# Pauses between attempts grow from the first to the longest (seconds), each drawn between zero and its bound, so that
# clients that failed together do not return together ("full jitter", AWS architecture blog, 2015).
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
# Questions that fail one after another before the server is taken to be gone for good, or the model to be unfit.
_GIVE_UP_AFTER = 100
# Connections of one client: it goes through all of them for each request, so many small ones are faster than one large.
_CONNECTIONS = 32
# Characters of a server's complaint, or of an unusable answer, that are kept.
_COMPLAINT, _REMINDER = 200, 2000


Slots = asyncio.LifoQueue[httpx2.AsyncClient]


class _Failed(Exception):
    """A question that the server does not answer."""


class ServerEngine(ModelEngine):
    """Asks a server about each eye.

    Args:
        endpoint: base address up to ``/v1``.
        model: as the server names it.
        prompt, budget, look, temperature, attempts: see :class:`ModelEngine`.
        max_tokens: longest answer.
        concurrency: questions at the server at a time; memory grows with it and with nothing else.
        timeout_s: seconds that one request may take in all.
        retries: times that a request is sent again after a failure.
        max_wait_s: seconds that a question may spend waiting because the server told it to (Retry-After).
        allow_remote: whether the endpoint may lie outside the own network.
        key_variable: environment variable with the key; unset: none is sent.
        constrain: ask the server to keep to the JSON schema while it writes (``response_format``).

    Raises:
        UsageError: the endpoint is no address, or is remote and not allowed.
    """

    name = "server"

    def __init__(
        self,
        endpoint: str,
        model: str,
        prompt: Prompt | JudgePrompt,
        budget: TokenBudget,
        *,
        look: bool,
        temperature: float,
        attempts: int,
        max_tokens: int,
        concurrency: int,
        timeout_s: float,
        retries: int,
        max_wait_s: float,
        allow_remote: bool,
        key_variable: str,
        constrain: bool,
    ):
        super().__init__(model, prompt, budget, look=look, temperature=temperature, attempts=attempts)
        require_local(endpoint, allow_remote)
        self._url = f"{endpoint.rstrip('/')}/chat/completions"
        self.max_tokens, self.constrain = max_tokens, constrain
        self.concurrency, self.timeout_s, self.retries, self.max_wait_s = concurrency, timeout_s, retries, max_wait_s
        self._allow_remote, self._key = allow_remote, os.environ.get(key_variable, "")
        self._open_at, self._failed_in_a_row = 0.0, 0

    def answered(self, questions: Iterator[Question]) -> Iterator[list[CaptionResult]]:
        """The captions in order; twice as many questions are drawn ahead as are asked at a time, so that a slow answer
        does not hold up the others.

        Raises:
            UsageError: the server refuses every question (key, model, address), or does not answer any more.
        """
        with _running_loop() as loop, self._slots(loop) as slots:
            window: deque[Future[list[CaptionResult]]] = deque()
            for question in questions:
                window.append(asyncio.run_coroutine_threadsafe(self._captions(slots, question), loop))
                if len(window) == 2 * self.concurrency:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()

    @contextmanager
    def _slots(self, loop: asyncio.AbstractEventLoop) -> Iterator[Slots]:
        """A client for each question that may be at the server at a time; those last given back are the first taken."""
        encryption = httpx2.create_ssl_context()  # reads the certificates once for all clients
        clients = [
            httpx2.AsyncClient(
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
                timeout=None,  # each request is timed as a whole, see _send
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),  # the slots are the bound
                follow_redirects=False,  # a redirect could lead out of the own network
                trust_env=self._allow_remote,  # and so could a proxy
                verify=encryption,
            )
            for _ in range(math.ceil(self.concurrency / _CONNECTIONS))
        ]
        slots = Slots()
        for index in range(self.concurrency):
            slots.put_nowait(clients[index % len(clients)])
        try:
            yield slots
        finally:
            asyncio.run_coroutine_threadsafe(_close(clients), loop).result()

    async def _captions(self, slots: Slots, question: Question) -> list[CaptionResult]:
        client = await slots.get()
        try:
            reply = await self._ask(client, question)
        except (DataError, _Failed) as error:
            reply = Reply(None, str(error))
        finally:
            slots.put_nowait(client)
        # Here and not where the stream is read, so that no answer waits there for an earlier one to be kept.
        return self.written(question, reply)

    async def _ask(self, client: httpx2.AsyncClient, question: Question) -> Reply:
        asked = self.prompt.messages(question.request.record, self._picture(question))
        messages, problem = asked, ""
        for attempt in range(self.attempts):
            said = await self._complete(client, messages, question.seed_of(attempt))
            try:
                answer = self.prompt.read(said)
            except DataError as error:
                problem = str(error)
                messages = self.prompt.ask_again(asked, said[:_REMINDER], problem)
            else:
                self._failed_in_a_row = 0
                return Reply(answer)
        raise self._failure(f"no usable answer in {self.attempts} attempts: {problem}")

    def _picture(self, question: Question) -> Message | None:
        if not self.look or question.request.image is None:
            return None
        data = question.request.image()
        try:
            kind = Image.open(io.BytesIO(data)).get_format_mimetype()
        except UnidentifiedImageError:
            raise DataError(f"image {question.request.image_id} is damaged; run `validate`") from None
        url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
        return {"type": "image_url", "image_url": {"url": url}}

    async def _complete(self, client: httpx2.AsyncClient, messages: list[Message], seed: int) -> str:
        """What the model says, after as many attempts as it takes to be answered at all."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": seed,
        }
        if self.constrain:
            schema = {"name": "answer", "schema": self.prompt.answer_schema(), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        content = json.dumps(body).encode()
        # The same question has the same key however often it is sent, so that a server or gateway that keeps keys
        # neither works nor charges for it twice.
        headers = {"Content-Type": "application/json", "Idempotency-Key": hashlib.sha256(content).hexdigest()}
        failures, waited = 0, 0.0
        while True:
            text, problem, told_to_wait = await self._send(client, content, headers)
            if text is not None:
                return text
            if told_to_wait is not None:
                told_to_wait = max(told_to_wait, _FIRST_PAUSE)
                waited += told_to_wait
                if waited > self.max_wait_s:
                    raise self._failure(f"{problem}, and asks to wait longer than {self.max_wait_s:g} s in all")
                # The limit is that of all questions, so all wait.
                self._open_at = max(self._open_at, asyncio.get_running_loop().time() + told_to_wait)
                continue
            failures += 1
            if failures > self.retries:
                raise self._failure(f"{problem} ({failures} attempts)")
            await asyncio.sleep(random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (failures - 1))))

    async def _send(
        self, client: httpx2.AsyncClient, content: bytes, headers: dict[str, str]
    ) -> tuple[str | None, str, float | None]:
        """(text, problem, seconds to wait): a text, or the problem, with the wait where the server asks for one."""
        clock = asyncio.get_running_loop()
        while (early := self._open_at - clock.time()) > 0:
            # Not all at the same instant: over a tenth of the wait.
            await asyncio.sleep(early * random.uniform(1, 1.1))
        try:
            async with asyncio.timeout(self.timeout_s):
                response = await client.post(self._url, content=content, headers=headers)
        except TimeoutError:
            return None, f"the server took longer than {self.timeout_s:g} s", None
        except httpx2.RequestError as error:  # also a body that is not encoded as its header says
            return None, f"the connection failed ({type(error).__name__}: {error})", None
        status = response.status_code
        if status == 200:
            try:
                text = response.json()["choices"][0]["message"]["content"]
            except (ValueError, LookupError, TypeError):
                return None, "the server's reply holds no message", None
            return (text, "", None) if isinstance(text, str) else (None, "the server's message is no text", None)
        complaint = f"the server answers {status}: {self._without_key(response.text)[:_COMPLAINT]}"
        if status in _MISCONFIGURED:
            raise UsageError(f"caption.server: {complaint}; check endpoint, model and the key's variable")
        if status not in _MAY_PASS:
            raise self._failure(complaint)
        return None, complaint, _seconds(response.headers.get("Retry-After"))

    def _failure(self, problem: str) -> Exception:
        """Of one question, or of the run where too many fail in a row."""
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= _GIVE_UP_AFTER:
            return UsageError(
                f"caption.server: {self._failed_in_a_row} questions in a row failed, the last because {problem}; "
                "see to the server or the model, then start this step again: what is finished is kept"
            )
        return _Failed(problem)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def require_local(endpoint: str, allow_remote: bool) -> None:
    """Refuses an endpoint to which patients' records may not go.

    Local is what has a loopback or private address; every address that the name has must be one. The name is looked up
    once, when the engine is made.

    Raises:
        UsageError: the endpoint is no http(s) address, holds a password, cannot be found, or is remote and not allowed;
            a remote one must be https even then.
    """
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UsageError(f"caption.server.endpoint {endpoint!r} is no address; give one like http://localhost:8000/v1")
    if url.username or url.password:
        raise UsageError("caption.server.endpoint holds a user or password; put a key in the variable of key_variable")
    if allow_remote and url.scheme == "https":
        return
    try:
        found = socket.getaddrinfo(url.hostname, url.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"caption.server.endpoint {endpoint}: no such host ({error})") from None
    remote = [str(address[4][0]) for address in found if not _is_local(str(address[4][0]))]
    if remote and allow_remote:
        raise UsageError(f"caption.server.endpoint {endpoint} is remote ({remote[0]}) and not encrypted; use https")
    if remote:
        raise UsageError(
            f"caption.server.endpoint {endpoint} is remote ({remote[0]}): records and pictures of patients would leave "
            "this network; set caption.server.allow_remote to true only where that is permitted"
        )


def _is_local(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    # ::ffff:8.8.8.8 is 8.8.8.8, but its block counts as private.
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_private


def _seconds(retry_after: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number or a date (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return None
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


@contextmanager
def _running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, so that requests go on while the caller does something else."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="caption server", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _close(clients: Sequence[httpx2.AsyncClient]) -> None:
    """Ends the requests under way and the connections."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for client in clients:
        await client.aclose()
