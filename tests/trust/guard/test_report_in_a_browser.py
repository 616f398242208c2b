"""The report and the model card of a hostile run in headless Chromium: nothing of it runs."""

import re
import shutil
import subprocess

import pytest
from test_report_hostile import PAYLOADS, dangers, pages  # noqa: F401  # pages is a fixture

from report_helpers import Page

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
SCRIPT = "<script>addEventListener('load', () => setTimeout(() => document.body.append('LOADED'), 400))</script>"


def opened(folder, text):
    """The page as Chromium has it after its scripts had their time."""
    (folder / "page.html").write_text(text + SCRIPT, encoding="utf-8", errors="backslashreplace")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=3000", "--dump-dom"]
    command.append((folder / "page.html").as_uri())
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "LOADED" in done.stdout, done.stderr[-500:]
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_nothing_runs_in_a_browser(pages, tmp_path):  # noqa: F811
    """Report and card in one page: of its two scripts one is the test's, one the report's."""
    dom = opened(tmp_path, pages["report"] + pages["card"])
    page = Page(dom)
    assert "OWNED" not in re.search(r"<title>(.*?)</title>", dom, re.S)[1]
    assert len(page.all("script")) == 2 and dangers(page) == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_browser_would_have_run_them(tmp_path):
    dom = opened(tmp_path, f"<!DOCTYPE html><title>page</title><body>{PAYLOADS[3]}")
    assert "<title>OWNED</title>" in dom and dangers(Page(dom)) != []
