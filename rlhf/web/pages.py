"""Pages from templates. Autoescape is on, and texts of pairs never go through a template: the page's script sets them
as text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

HERE = Path(__file__).parent
_templates = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)


def render(request: Request, template: str, values: Mapping[str, Any], *, status: int = 200) -> HTMLResponse:
    """A template with the values and, where somebody is logged in, `actor`."""
    actor = getattr(request.state, "actor", None)
    return HTMLResponse(_templates.get_template(template).render(actor=actor, **values), status_code=status)
