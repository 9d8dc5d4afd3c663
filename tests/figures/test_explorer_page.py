"""The explorer in a browser: a slider moved by the keyboard, the button, links, and no error."""

import os
import re

import pytest

import figures.explorer as explorer

sync_api = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    """Chromium, at ICL_THEORY_CHROMIUM or where playwright has put its own."""
    with sync_api.sync_playwright() as playwright:
        path = os.environ.get("ICL_THEORY_CHROMIUM")
        if not os.path.exists(path or playwright.chromium.executable_path):
            pytest.skip("no Chromium; set ICL_THEORY_CHROMIUM or run `playwright install chromium`")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("explorer") / "page.html"
    path.write_text(explorer.page(), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def visit(browser, address):
    """Open the page; at the end nothing may have been logged, nor fetched from elsewhere."""
    troubles = []

    def open_page(hash="", width=1280):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(60_000)
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith("file:") else troubles.append(request.url))
        page.goto(address + hash)
        page.wait_for_function("document.querySelector('.summary').textContent")
        return page

    yield open_page
    assert troubles == []


def text(page, query, wanted):
    """Text of an element once it matches."""
    sync_api.expect(page.locator(query)).to_have_text(re.compile(wanted), timeout=60_000)
    return page.locator(query).inner_text()


def test_slider_moves_by_keyboard(visit):
    page = visit()
    assert "2.26 under gradient descent, 1.56 under SAM" in text(page, ".summary", "SAM")
    slider = page.get_by_role("slider", name="ρ, SAM's radius")
    slider.focus()
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext").startswith("0.045, δ = ρ/(√3 u₀) = 0.52")
    text(page, ".summary", r"2\.26 under gradient descent, 1\.4\d under SAM")
    page.wait_for_function("location.hash.includes('rho=0.045')")
    page.get_by_role("button", name="reset").press("Enter")
    text(page, ".summary", r"1\.56 under SAM")


def test_button_finds_the_factor(visit):
    page = visit()
    page.get_by_role("button", name="find the κ that equals this ρ").press("Enter")
    text(page, ".found", r"^κ = 1\.45: .* gradient descent has SAM's t₂/t₁ of 1\.56\.")
    text(page, ".summary", r"1\.56 under SAM and 1\.56 on upsampled data")
    assert page.get_by_role("slider", name="κ, upsampling").get_attribute("aria-valuetext") == "×\u00a01.45"


def test_link_can_be_copied(visit):
    """To the clipboard, or by hand where the browser refuses."""
    page = visit()
    page.get_by_role("button", name="copy link").press("Enter")
    text(page, ".found", "^The link is copied|^Copy the link from the field")
    assert "#explorer:start=aligned&eigenvalues=0.415385," in page.url


def test_link_opens_the_setting(visit):
    """A random start with a ρ that traps SAM, which is said and has no κ."""
    page = visit("#explorer:start=random&rho=0.3&seed=4", width=500)
    text(page, ".summary", "SAM is trapped: by t = .* has not left the saddle at zero")
    assert page.get_by_role("slider", name="seed").is_visible()
    assert not page.get_by_role("slider", name="initial scale u₀").is_visible()
    assert "not learned by t = " in page.locator(".times").inner_text()
    page.get_by_role("button", name="find the κ").press("Enter")
    text(page, ".found", "There is no such κ: SAM is trapped")
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
