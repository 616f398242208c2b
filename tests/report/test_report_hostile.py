"""What data and models wrote stays text in the report and the model card.

Every place of a run folder that others fill holds every payload. A payload that runs writes `OWNED` into the page's
title: tests/trust/guard looks at the same pages in a browser. The report's own script policy is taken off, so that
escaping alone is what is tested.
"""

import json
import re

import pytest
from markdown_it import MarkdownIt

from dudi.report import write_model_card, write_report
from report_helpers import Page, answer, build_asked, leaf, sample

OWN = "document.title='OWNED'"
PAYLOADS = [
    f"<script>{OWN}</script>",
    f"</script><script>{OWN}</script>",
    f"</style><script>{OWN}</script>",
    f"</pre></dd></td></code><img src=x onerror={OWN}>",
    f'"><svg onload="{OWN}">',
    f"' onmouseover='{OWN}' autofocus onfocus='{OWN}",
    f"<iframe srcdoc='<script>top.{OWN}</script>'></iframe>",
    f"<a href=javascript:{OWN}>x</a>",
    f"<!--><script>{OWN}</script>-->",
    f"<![CDATA[<script>{OWN}</script>]]>",
    "{{ cycler.__init__.__globals__ }}{% raw %}",
    "&lt;script&gt;document.title='OWNED'&lt;/script&gt;",
    # Markdown
    f"[x](javascript:{OWN})",
    f"![x](javascript:{OWN})",
    f"<javascript:{OWN}>",
    f"[x]: javascript:{OWN}",
    f"`x` ``` <script>{OWN}</script>",
    f"\n\n```\n\n<script>{OWN}</script>\n\n```\n",
    f"\n\n<script>{OWN}</script>\n\n# heading | cell |\n---\n",
    f"| a |\n|---|\n| <img src=x onerror={OWN}> |",
    "https://evil.example/x www.evil.example",
    # a terminal's escape codes, and text turned around
    "\x1b]0;OWNED\x07\x1b[2J",
    "\u202e<script>",
]
TEXT = "\n".join(PAYLOADS)


def hostile_run(folder):
    """A run folder that another person filled."""
    fields = ("rollout", "prompt", "gold", "language", "target_language", "detected_language", "kind", "id", "stage")
    samples = [sample(**{field: text}) for text in PAYLOADS for field in fields]
    samples += [sample("th", rollout=TEXT)]
    fields = ("answer", "question", "reference", "language", "split", "id")
    records = [
        answer(who, f"{field}-{place}", "seen", exact=False) | {field: text}
        for place, text in enumerate(PAYLOADS)
        for field in fields
        for who in ("base", "student")
    ]
    asked = dict.fromkeys(("name", "part", "questions", "fingerprint", "cldr_version", "babel_version"), TEXT)
    run = build_asked(folder / "run <img src=x>", records=records, samples=samples, asked=asked | {"tasks": PAYLOADS})
    result = json.loads((run / "evaluation.json").read_text())
    by_subject = {one["subject"]: one for one in result["evaluations"]}
    for text in PAYLOADS:
        shown = "".join(character for character in text if character.isprintable())  # others are no names
        result["evaluations"].append(by_subject["base"] | {"subject": shown, "name": shown})
        by_subject["student"]["runs"][0]["scores"]["by_language"][text] = leaf(0.5, "student")
    by_subject["student"]["about"]["method"] = TEXT
    (run / "evaluation.json").write_text(json.dumps(result))
    said = json.dumps(TEXT)  # YAML reads JSON's texts
    (run / "resolved.yaml").write_text(
        f"student:\n  model: {said}  # recipe <b>\nteacher:\n  model: {said}\nmethod: dudi\nrun_name: {said}\n"
        f"languages: [{said}]\nverbalizer: {said}\nseed: {said}\ndata:\n  train: {said}\nbenchmark:\n  name: {said}\n"
    )
    environment = {"python": TEXT, "packages": dict.fromkeys(("dudi", TEXT), TEXT), "commit": TEXT}
    environment |= {"device": {"type": TEXT, "names": PAYLOADS}, "command": ["dudi", *PAYLOADS]}
    (run / "env.json").write_text(json.dumps(environment))
    counts = dict.fromkeys(PAYLOADS, 1)
    (run / "data.json").write_text(json.dumps({"source": TEXT, "fingerprint": TEXT, "rows": counts}))
    return run


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The report without its script policy, and the card as Markdown makes HTML of it, raw HTML let through."""
    run = hostile_run(tmp_path_factory.mktemp("hostile"))
    report = re.sub(r"<meta http-equiv[^>]*>", "", write_report([run]).read_text(encoding="utf-8"))
    card = write_model_card(run).read_text(encoding="utf-8")
    body = card.split("---\n", 2)[2]
    rendered = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(body)
    return {
        "report": report,
        "card": f"<!DOCTYPE html><meta charset='utf-8'><title>card</title><body>{rendered}</body>",
    }


ASKS = {"href", "src", "srcset", "srcdoc", "action", "formaction", "data", "poster", "xlink:href", "background"}


def dangers(page):
    """Elements and attributes through which a page would run something or ask somebody."""
    found = [name for name, _ in page.elements if name in ("img", "iframe", "object", "embed", "base", "form", "link")]
    for name, attributes in page.elements:
        for key, value in attributes.items():
            if key.startswith("on") or (key in ASKS and not (value or "").startswith("#")):
                found.append(f"{name} {key}={value}")
    return found


@pytest.mark.parametrize("which", ["report", "card"])
def test_everything_is_still_there_as_text(pages, which):
    page = Page(pages[which])
    assert dangers(page) == [] and page.open == []
    words = " ".join(" ".join(page.texts).split())
    for payload in PAYLOADS[:4]:
        assert payload in words


def test_the_card_has_no_line_that_others_wrote(pages):
    """A table, a heading or front matter of somebody's text would stand at the start of a line."""
    headings = re.findall(r"<h\d>(.*?)</h\d>", pages["card"])
    assert len(headings) == 8 and not any("heading" in heading for heading in headings)
