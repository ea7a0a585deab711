"""Pages as HTML: one environment for all templates, one style, no script.

Invariant: whatever a template inserts is escaped, and a page loads nothing, neither from elsewhere nor from here. Its
style stands in it, so that it opens offline too; `policy` lets a browser use that style and nothing else.
"""

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from recon_pipeline.settings import read_name

_PACKAGE = "recon_pipeline.faces"


def render(template: str, **values: Any) -> str:
    """The page; one that is served names its installation, where that has a name."""
    return _environment().get_template(template).render(values, name=read_name())


@cache
def policy() -> str:
    """The Content-Security-Policy of every page."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(_PACKAGE, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["reload"] = Markup('<meta http-equiv="refresh" content="60">')
    environment.globals["style"] = Markup(_style())  # noqa: S704 - a file of ours
    return environment


@cache
def _style() -> str:
    return resources.files(_PACKAGE).joinpath("page.css").read_text(encoding="utf-8")
