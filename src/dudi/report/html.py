"""What all pages have in common: the template around them, and what its parts are drawn with."""

from __future__ import annotations

import datetime
from typing import Any

from markupsafe import Markup

from dudi.evaluation.records import FILE
from dudi.report.charts import inline, key_mark
from dudi.report.files import resource, template
from dudi.report.samples import lang, language_title
from dudi.tables import html_table


def render_html(name: str, *, title: str, figures: str, **own: Any) -> str:
    """A page as text.

    Args:
        name: Its template, which extends `page.html.jinja`.
        title: Of the page.
        figures: Name of the folder that holds the charts as files.
        own: What its template has beside what all have.
    """
    page = template(name, autoescape=True).render(
        title=title,
        figures=figures,
        html_table=lambda grid, kind="": Markup(html_table(grid, kind)),
        inline=inline,
        key_mark=key_mark,
        title_of=language_title,
        lang=lang,
        result_file=FILE,
        style=Markup(resource("chart.css") + resource("report.css")),
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **own,
    )
    return str(page)
