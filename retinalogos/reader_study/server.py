"""The web page on which readers judge: one picture at a time, every answer on disk before the next is shown."""

import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from retinalogos.errors import DataError, UsageError
from retinalogos.reader_study.answers import Answer, Book, only_writer, read_books, start_book
from retinalogos.reader_study.design import (
    ASPECTS,
    KINDS,
    ROLES,
    SCORES,
    Study,
    open_study,
    picture_path,
    reader_key,
    reader_name,
)
from retinalogos.reader_study.page import render

# A form has about 200 bytes.
_MOST_BYTES = 8192
_COOKIE = "reader"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # A picture or page is shown once, and stays in no cache of the browser.
    "Cache-Control": "no-store",
}
_STATIC = {"style.css": "text/css", "reading.js": "text/javascript"}


class Desk:
    """The readers of a study and where each of them is; its methods answer requests.

    All runs in one thread, and nothing is awaited between looking at an order and writing to it.
    """

    def __init__(self, folder: Path, study: Study):
        self.folder, self.study = folder, study
        self.books = {book.reader.key: book for book in read_books(folder, study)}
        self._seen: dict[tuple[str, int], float] = {}

    def routes(self) -> list[Route]:
        """What there is to ask for."""
        return [
            Route("/", self.welcome, methods=["GET"]),
            Route("/", self.enter, methods=["POST"]),
            Route("/leave", self.leave, methods=["POST"]),
            Route("/read", self.show, methods=["GET"]),
            Route("/read", self.take, methods=["POST"]),
            Route("/picture/{trial:int}", self.picture, methods=["GET"]),
            Route("/favicon.ico", lambda request: Response(status_code=204), methods=["GET"]),
            *(Route(f"/{name}", _static, methods=["GET"]) for name in _STATIC),
        ]

    async def welcome(self, request: Request) -> Response:
        """What is asked, and who reads."""
        return self._welcome(self._book(request))

    async def enter(self, request: Request) -> Response:
        """Begins, or goes on where the reader of that name was."""
        form = await _form(request)
        try:
            name = reader_name(form.get("name", ""))
            key = reader_key(name)
            if key not in self.books:
                self.books[key] = start_book(self.folder, self.study, name, form.get("role", ""))
            elif self.books[key].reader.role != form.get("role"):
                raise UsageError("someone of that name has begun in another role; choose another name, or that role")
        except UsageError as error:
            return self._welcome(None, said=str(error), form=form, status=422)
        response = RedirectResponse("/read", 303)
        response.set_cookie(_COOKIE, key, httponly=True, samesite="strict")
        return response

    async def leave(self, request: Request) -> Response:
        """Forgets in this browser who reads; the answers stay."""
        response = RedirectResponse("/", 303)
        response.delete_cookie(_COOKIE, httponly=True, samesite="strict")
        return response

    async def show(self, request: Request) -> Response:
        """The picture whose turn it is."""
        book = self._book(request)
        return RedirectResponse("/", 303) if book is None else self._reading(book)

    async def take(self, request: Request) -> Response:
        """Keeps an answer, and shows the next picture."""
        form = await _form(request)
        book = self._book(request)
        if book is None:
            return RedirectResponse("/", 303)
        trial = len(book.answers)
        # An answer to an earlier picture comes from a second click or a second window: it is there already.
        if form.get("trial") == str(trial) and trial < len(book.order):
            given = {name: _score(form.get(name)) for name in ASPECTS if name in form}
            seen = self._seen.pop((book.reader.key, trial), None)
            try:
                answer = Answer.model_validate(
                    {
                        "trial": trial,
                        "picture": book.order[trial].picture,
                        "repeat": book.order[trial].repeat,
                        "judged": form.get("judged"),
                        "ratings": given,
                        "seconds": None if seen is None else round(time.monotonic() - seen, 1),
                    }
                )
            except ValidationError as error:
                if seen is not None:
                    self._seen[book.reader.key, trial] = seen
                missing = {str(part) for problem in error.errors() for part in problem["loc"]}
                return self._reading(book, form, missing, status=422)
            book.add(answer)
        return RedirectResponse("/read", 303)

    async def picture(self, request: Request) -> Response:
        """The picture of the trial whose turn it is; no other can be had."""
        book = self._book(request)
        trial = request.path_params["trial"]
        if book is None or trial != len(book.answers) or trial >= len(book.order):
            raise HTTPException(404)
        return Response(picture_path(self.folder, book.order[trial].picture).read_bytes(), media_type="image/png")

    def _book(self, request: Request) -> Book | None:
        return self.books.get(request.cookies.get(_COOKIE, ""))

    def _welcome(
        self, book: Book | None, said: str = "", form: dict[str, str] | None = None, status: int = 200
    ) -> Response:
        return HTMLResponse(
            render(
                "welcome.html.j2",
                trials=len(self.study.pictures) + 2 * self.study.repeats,
                aspects=ASPECTS,
                scores=SCORES,
                roles=ROLES,
                book=book,
                said=said,
                form=form or {},
            ),
            status,
        )

    def _reading(
        self, book: Book, form: dict[str, str] | None = None, missing: set[str] | None = None, status: int = 200
    ) -> Response:
        trial = len(book.answers)
        if trial == len(book.order):
            return HTMLResponse(render("finished.html.j2", book=book))
        self._seen.setdefault((book.reader.key, trial), time.monotonic())
        return HTMLResponse(
            render(
                "reading.html.j2",
                book=book,
                trial=trial,
                total=len(book.order),
                kinds=KINDS,
                aspects=ASPECTS,
                scores=SCORES,
                form=form or {},
                missing=[name for name in ("judged", *ASPECTS) if name in (missing or ())],
            ),
            status,
        )


def make_app(folder: Path, study: Study, hosts: Sequence[str]) -> Starlette:
    """The application; whoever runs it holds :func:`only_writer`.

    Args:
        folder: of the study.
        study: what :func:`open_study` read there.
        hosts: names under which a browser may ask for it ("*": any), so that no page elsewhere can borrow a name.

    Raises:
        DataError: answers on disk are damaged.
    """
    return Starlette(
        routes=Desk(folder, study).routes(),
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
            Middleware(BaseHTTPMiddleware, dispatch=_guarded),
        ],
        exception_handlers={HTTPException: _refused, OSError: _not_kept, DataError: _not_kept},
    )


def serve(folder: Path, host: str, port: int) -> None:
    """Serves a study until it is told to end (Ctrl+C); port 0 is any free one.

    Raises:
        UsageError: no study is there, it is served already, or the address cannot be had.
        DataError: study or answers are damaged.
    """
    study = open_study(folder)
    with only_writer(folder), _listening(host, port) as listener:
        local = host in _LOCAL
        app = make_app(folder, study, [*_LOCAL] if local else ["*"])
        shown = f"[{host}]" if ":" in host else host
        print(f"reader study of {folder}: http://{shown}:{listener.getsockname()[1]}/ (Ctrl+C ends it)", flush=True)
        if not local:
            print("Whoever reaches this address can take part under any name, and nothing is encrypted.", flush=True)
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, proxy_headers=False)
        uvicorn.Server(config).run(sockets=[listener])


_LOCAL = ("127.0.0.1", "localhost", "::1", "[::1]")


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UsageError(f"--host {host} --port {port}: {error}; name another (--port 0: any free one)") from None


async def _guarded(request: Request, call_next: RequestResponseEndpoint) -> Response:
    # Browsers say where a form comes from; another site's is none of the reader's doing.
    if request.method == "POST" and request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        response: Response = Response("This form came from another site.", 403, media_type="text/plain")
    else:
        response = await call_next(request)
    response.headers.update(_HEADERS)
    return response


async def _static(request: Request) -> Response:
    name = request.url.path.removeprefix("/")
    return Response(Path(__file__).with_name(name).read_bytes(), media_type=_STATIC[name])


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _said(error.status_code, error.detail, "")


async def _not_kept(request: Request, error: Exception) -> Response:
    print(f"retinalogos: {request.method} {request.url.path}: {error}", file=sys.stderr, flush=True)
    return _said(
        500,
        "Not saved",
        "The answer could not be written. Please tell whoever runs the study, then go back and answer this picture "
        "again; all before it are kept.",
    )


def _said(status: int, title: str, text: str) -> Response:
    return HTMLResponse(render("said.html.j2", title=title, text=text), status)


async def _form(request: Request) -> dict[str, str]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise HTTPException(413)
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict"))
    except ValueError:
        raise HTTPException(400) from None


def _score(text: str | None) -> Any:
    """1 to 3; None for "cannot be judged" (0); anything else as it is, for the model to refuse."""
    return {"0": None, **{str(score): score for score in SCORES}}.get(text or "", text)
