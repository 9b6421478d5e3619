"""Pages of the reader study: Jinja templates beside this file, escaped, in which a missing name is an error."""

from pathlib import Path
from typing import Any

from retinalogos.pages import environment
from retinalogos.provenance import software

_PAGES = environment(Path(__file__).parent)
NOTICE = "For research use only. Not for diagnosis, nor for any decision about a patient."


def render(template: str, **values: Any) -> str:
    """The page that a template makes of ``values``."""
    return _PAGES.get_template(template).render(software=software(), notice=NOTICE, **values)
