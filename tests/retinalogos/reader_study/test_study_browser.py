"""The study in a real browser: by keyboard alone, with the picture enlarged, closed and opened again."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from browser import Tab, browser

from retinalogos.reader_study.answers import read_books
from retinalogos.reader_study.design import ASPECTS, Study
from retinalogos.reader_study.server import make_app


@contextmanager
def served(folder: Path, study: Study) -> Iterator[str]:
    """Address of the study, served by a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = make_app(folder, study, ["127.0.0.1"])
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


def at_picture(tab: Tab, number: int) -> None:
    tab.until(
        f"document.readyState === 'complete' && document.title === 'Picture {number} of 16' && "
        "document.getElementById('picture').naturalWidth === 40"
    )


def begin(tab: Tab, address: str, name: str) -> None:
    """Says who reads, without a mouse."""
    tab.go(address)
    for _ in range(20):
        tab.press("Tab")
        if tab.evaluate("document.activeElement.id") == "name":
            break
    tab.write(name)
    tab.press("Tab", "ArrowDown", "Enter")


def test_a_reader_at_the_keyboard(study, folder, tmp_path):
    with served(folder, study) as address:
        with browser(tmp_path / "first") as new_tab:
            tab = new_tab()
            begin(tab, address, "anna")
            at_picture(tab, 1)

            # Every question and every answer has a name for those who do not see it.
            told = tab.names()
            groups = [name for role, name in told if role == "group"]
            assert [name for name in groups if name in ASPECTS.values()] == list(ASPECTS.values())
            radios = [name for role, name in told if role == "radio"]
            assert len(radios) == 2 + 3 * len(ASPECTS) + len(ASPECTS) - 1
            assert all(radios)
            assert ("image", "The picture to be judged") in told
            assert all(name for role, name in told if role in ("button", "checkbox", "progressbar", "image"))

            # Enter saves nothing while a question is open, and leads to it.
            tab.press("s", "1", "2", "3", "0", "0", "Enter")
            assert tab.evaluate("document.activeElement.name") == "overall"
            assert read_books(folder, study)[0].answers == []
            tab.press("3")
            assert tab.evaluate("document.querySelectorAll('input:checked[type=radio]').length") == 7

            # Enlarging keeps the middle in the middle, moving is possible, and neither touches the answers.
            side = "document.getElementById('picture').getBoundingClientRect().width"
            fitted = tab.evaluate(side)
            tab.press("+", "+", "+", "+")
            assert tab.evaluate(side) == pytest.approx(fitted * 1.25**4, rel=0.02)
            pane = "document.getElementById('pane')"
            middle = tab.evaluate(f"{pane}.scrollLeft + {pane}.clientWidth / 2")
            assert middle == pytest.approx(tab.evaluate(f"{pane}.scrollWidth / 2"), abs=3)
            tab.evaluate(f"{pane}.focus()")
            tab.press("ArrowRight")
            tab.until(f"{pane}.scrollLeft + {pane}.clientWidth / 2 > {middle} + 5")
            # It glides, and has come to rest where it is found again.
            tab.until(f"{pane}.scrollLeft === window.before || (window.before = {pane}.scrollLeft, false)")
            at = tab.evaluate(f"[{pane}.scrollLeft, {pane}.scrollTop]")
            drag = {"button": "left", "buttons": 1, "clickCount": 1}
            tab.call("Input.dispatchMouseEvent", type="mousePressed", x=300, y=300, **drag)
            tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=340, y=280, **drag)
            tab.call("Input.dispatchMouseEvent", type="mouseReleased", x=340, y=280, **drag)
            assert tab.evaluate(f"[{pane}.scrollLeft, {pane}.scrollTop]") == pytest.approx(
                [at[0] - 40, at[1] + 20], abs=1
            )
            tab.press("f")
            assert tab.evaluate(side) == pytest.approx(fitted)
            tab.call("Input.dispatchMouseEvent", type="mouseWheel", x=300, y=300, deltaX=0, deltaY=-100)
            tab.until(f"{side} > {fitted} * 1.2")

            tab.press("Enter")
            at_picture(tab, 2)
            (answer,) = read_books(folder, study)[0].answers
            assert answer.judged == "synthetic"
            expected = {"disc": 1, "macula": 2, "vessels": 3, "nerve_fibre_layer": None, "lesions": None, "overall": 3}
            assert answer.ratings.model_dump() == expected

            # Single keys off: they do nothing, now and on the next page; the form works by Tab and arrows as any form.
            tab.evaluate("document.getElementById('keys').click()")
            tab.press("r", "1")
            assert tab.evaluate("document.querySelectorAll('input:checked[type=radio]').length") == 0
            tab.evaluate("document.querySelector('input[name=judged]').focus()")
            tab.press(" ")
            for _ in ASPECTS:
                tab.press("Tab", " ", "ArrowRight")
            tab.press("Enter")
            at_picture(tab, 3)
            assert tab.evaluate("document.getElementById('keys').checked") is False
            last = read_books(folder, study)[0].answers[1]
            assert (last.judged, set(last.ratings.model_dump().values())) == ("real", {2})

            # Back in the browser's history does not bring an answered picture back.
            tab.evaluate("history.back()")
            at_picture(tab, 3)
            assert {request.startswith(address) for request in tab.requests if request != "about:blank"} == {True}
            assert tab.complaints == []

        # The browser is gone, and its cookie with it: the name is enough.
        with browser(tmp_path / "second") as new_tab:
            tab = new_tab()
            begin(tab, address, "Anna")
            at_picture(tab, 3)
            # On a narrow screen nothing is cut off at the side.
            tab.call("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
            tab.until("document.documentElement.clientWidth === 400")
            assert tab.evaluate("document.documentElement.scrollWidth") == 400
            tab.press("r", "1", "1", "1", "1", "1", "1", "Enter")
            at_picture(tab, 4)
    assert len(read_books(folder, study)[0].answers) == 3
