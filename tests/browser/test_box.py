"""Notebook 04's box in a real browser: JupyterLab, the tiny profile, the system's Chromium.

`make test-browser` runs it. `make test` does not: it wants a browser, playwright and two minutes. CHROMIUM names
another browser, SCREENSHOTS a folder for pictures of what was seen.
"""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from llmft_helpers.__main__ import main
from llmft_helpers.runs import ROOT

NOTEBOOK = "04_compare_models.ipynb"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
PATIENCE = 240_000  # milliseconds: all of the notebook on one slow core


@pytest.fixture(scope="module")
def laboratory(outputs, tmp_path_factory):
    """The address of a JupyterLab over a copy of notebook 04, after runs of the notebooks whose results it reads."""
    assert Path(CHROMIUM).is_file(), f"no browser at {CHROMIUM}: install Chromium, or name one with CHROMIUM=..."
    assert main(["run", "01", "02", "03", "--profile", "tiny"]) == 0
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(ROOT / "notebooks" / NOTEBOOK, folder)
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}')  # else cells out of sight are not in the page
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port, token = free.getsockname()[1], secrets.token_hex()
    words = [
        "lab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        f"--IdentityProvider.token={token}",
    ]
    environment = {
        "PYTHONPATH": str(ROOT),
        "LLMFT_PROFILE": "tiny",
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
    }
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyter", *words], cwd=folder, env=os.environ | environment, stdout=log, stderr=log
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", server, folder / "log")
            yield f"http://127.0.0.1:{port}/lab/tree/{NOTEBOOK}?token={token}"
        finally:
            server.terminate()
            server.wait(timeout=60)


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def page(laboratory):
    """Notebook 04 in JupyterLab, after all of its cells were run from the menu."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(laboratory)
        expect(page.locator(".jp-Notebook .jp-CodeCell").first).to_be_visible(timeout=PATIENCE)
        # its indicator in the toolbar says idle before a kernel is there, and cells are then run by none
        expect(page.locator("#jp-main-statusbar")).to_contain_text("(ipykernel) | Idle", timeout=PATIENCE)
        page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
        page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
        expect(page.get_by_role("button", name="Compare")).to_have_count(2, timeout=PATIENCE)
        yield page
        browser.close()


def _picture(page, name: str) -> None:
    if "SCREENSHOTS" in os.environ:
        page.screenshot(path=Path(os.environ["SCREENSHOTS"]) / f"{name}.png")


def _ask(page, place: int, **typed: str):
    """The box in that place after its fields were filled and its button clicked, and its table of answers."""
    box = page.locator(".widget-vbox").nth(place)
    for label, text in typed.items():
        box.get_by_label(label).fill(text)
    box.get_by_role("button", name="Compare").click()
    table = box.locator("table")
    expect(table).to_be_visible(timeout=PATIENCE)
    box.scroll_into_view_if_needed()
    return box, table


def test_a_sentence_is_typed_and_answered_next_to_the_example(page):
    assert page.locator(".jp-OutputArea-output table", has_text="base, few-shot").count() >= 2
    box, table = _ask(page, 0, Spanish="¿Qué <b>hora</b> es?")
    expect(box.get_by_text("Spanish: ¿Qué <b>hora</b> es?")).to_be_visible()
    assert table.locator("th").all_inner_texts() == ["base", "base, few-shot", "tuned"]
    answers, seconds = (table.locator("tbody tr").nth(row).locator("td").all_inner_texts() for row in (0, 1))
    assert len(answers) == 3 and all(map(str.strip, answers))
    assert all(re.fullmatch(r"\d+\.\d s\s*", text) for text in seconds)
    _picture(page, "sentence")


def test_a_problem_is_graded_by_the_typed_test_and_a_wrong_test_is_told(page):
    box, table = _ask(
        page, 1, problem="Return one.", signature="def one() -> int:", test="assert one() == 1\nassert one()"
    )
    expect(table).to_contain_text(re.compile(r"\d of 2 tests passed"))
    _picture(page, "problem")
    box.get_by_label("test").fill("assert one(")
    box.get_by_role("button", name="Compare").click()
    expect(box.get_by_text("your test, line 1: '(' was never closed")).to_be_visible(timeout=PATIENCE)
    _picture(page, "wrong_test")
