"""What a browser makes of the page: every glyph is there, a phone shows it whole, the filter filters.

Chromium draws a character that no font has as the box of U+10FFFF, which is no character: so a character is missing
when its picture is that box. The page's own script policy is taken off for the test's script.
"""

import html
import json
import re
import shutil
import subprocess

import pytest

from dudi.languages.registry import LANGUAGES, load_languages
from dudi.report import write_report
from report_helpers import Page, answer, build_asked, sample

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
NO_FONT_HAS_THIS = "\U000f1234"
PHONE = 360
LOOK = """
<script>
const box = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
box.canvas.width = box.canvas.height = 64;
const picture = (text, font) => {
  box.clearRect(0, 0, 64, 64); box.font = font; box.fillText(text, 16, 40);
  return box.getImageData(0, 0, 64, 64).data.join();
};
const look = (page) => {
  const missing = {}, fonts = new Map(), shown = {};
  const walk = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const inside = walk.currentNode.parentElement;
    if (inside.closest("script, style")) continue;
    const font = "24px " + page.defaultView.getComputedStyle(inside).fontFamily;
    if (!fonts.has(font)) fonts.set(font, new Set());
    for (const character of walk.currentNode.data) fonts.get(font).add(character);
  }
  for (const [font, characters] of fonts) {
    const tofu = picture("\\u{10ffff}", font);
    for (const one of characters) {
      if (/[\\p{White_Space}\\p{Cc}\\p{Cf}]/u.test(one)) continue;
      shown[one.codePointAt(0)] = true;
      if (picture(one, font) === tofu) missing[one.codePointAt(0)] = true;
    }
  }
  return {missing: Object.keys(missing).map(Number), shown: Object.keys(shown).length};
};
addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument, found = look(page);
  found.width = page.documentElement.scrollWidth;
  found.window = page.documentElement.clientWidth;
  const filter = page.querySelector("#answers-language");
  const visible = () => [...filter.closest("section").querySelectorAll(".sample")]
    .filter((one) => !one.hidden).map((one) => one.dataset.language);
  found.first = [...new Set(visible())];
  filter.value = "th"; filter.dispatchEvent(new page.defaultView.Event("change"));
  found.thai = [...new Set(visible())];
  filter.value = ""; filter.dispatchEvent(new page.defaultView.Event("change"));
  found.all = [...new Set(visible())].length;
  document.title = JSON.stringify(found);
});
</script>
"""


def everything_in(code):
    """A language's own name and what the verbalizer says in it: real sentences in its script."""
    language = load_languages()[code]
    return " ".join([language.autonym, *language.names.values(), language.wording.teacher, language.wording.student])


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What Chromium saw of two pages at a phone's width: one in all languages, one with a character of no font."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")

    def look(extra):
        folder = tmp_path_factory.mktemp("page")
        records = [
            answer(who, f"q-{code}", "seen", code, exact=True, question=everything_in(code) + extra)
            for code in LANGUAGES
            for who in ("base", "student", "teacher")
        ]
        samples = [sample(code, prompt=everything_in(code)) for code in LANGUAGES]
        run = build_asked(folder / "run", records=records, samples=samples)
        text = re.sub(r"<meta http-equiv[^>]*>", "", write_report([run]).read_text(encoding="utf-8"))
        frame = f'<iframe width="{PHONE}" height="800" style="border:0" srcdoc="{html.escape(text)}"></iframe>'
        file = folder / "look.html"
        file.write_text(f"<!DOCTYPE html><meta charset='utf-8'>{LOOK}{frame}", encoding="utf-8")
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", "--dump-dom", file.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
        assert title, done.stderr[-500:]
        return json.loads(html.unescape(title[1]))

    return {"good": look(""), "bad": look(NO_FONT_HAS_THIS)}


def test_no_glyph_is_missing_in_any_of_the_scripts(seen):
    assert seen["good"]["shown"] > 200  # four scripts: Latin, Thai, Tamil, Burmese
    assert [chr(code) for code in seen["good"]["missing"]] == []


def test_a_missing_glyph_is_noticed(seen):
    assert [chr(code) for code in seen["bad"]["missing"]] == [NO_FONT_HAS_THIS]


def test_the_page_is_as_wide_as_a_phone(seen):
    assert seen["good"]["width"] <= seen["good"]["window"] <= PHONE


def test_the_filter_shows_one_language_or_all(seen):
    assert (seen["good"]["first"], seen["good"]["thai"], seen["good"]["all"]) == (["en"], ["th"], len(LANGUAGES))


def test_the_fonts_of_every_script_are_named(tmp_path):
    style = write_report([build_asked(tmp_path / "run")]).read_text(encoding="utf-8")
    for font in (
        "Noto Sans Thai",
        "Noto Sans Tamil",
        "Noto Sans Myanmar",
        "Leelawadee UI",
        "Nirmala UI",
        "Myanmar Text",
    ):
        assert font in style
    assert Page(style).open == []
