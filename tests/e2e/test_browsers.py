"""Chromium, Playwright and its MCP server work in a sandbox, through the proxy alone."""

import json
from pathlib import Path

import pytest

from tests.conftest import TOOLS, FindProgram

from .rig.internet import Internet
from .rig.launch import Launches
from .rig.origin import Exchange, Talk

HOST = "pages.test"
ALLOWLIST = f"allow: [{HOST}]\n"
PAGE = b"""\
<title>A page</title>
<script>
  const go = () => fetch("/data").then((r) => r.text()).then((t) => { document.title = t });
</script>
<button onclick="go()">go</button>
"""
LOOKS = """
const { chromium } = require(process.argv[2]);
(async () => {
  const browser = await chromium.launch({ executablePath: process.argv[3] });
  const page = await browser.newPage();
  const response = await page.goto("https://pages.test/");
  console.log(response.status(), await page.title());
  await page.click("button");
  await page.waitForFunction(() => document.title == "some data");
  await page.goto("https://denied.test/").catch((e) => console.log(e.message.split("\\n")[0]));
  await browser.close();
})();
"""
ASKS = """
const { spawn } = require("node:child_process");
const [program, ...words] = process.argv.slice(2);
const server = spawn(program, words, { stdio: ["pipe", "pipe", "inherit"] });
const send = (message) =>
  server.stdin.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\\n");
const go = { name: "browser_navigate", arguments: { url: "https://pages.test/" } };
const answers = {
  1: () => { send({ method: "notifications/initialized" });
             send({ id: 2, method: "tools/call", params: go }); },
  2: (result) => { console.log(JSON.stringify(result));
                   send({ id: 3, method: "tools/call",
                          params: { name: "browser_close", arguments: {} } }); },
  3: () => server.stdin.end(),
};
require("node:readline").createInterface({ input: server.stdout }).on("line", (line) => {
  const message = JSON.parse(line);
  if (message.id in answers) answers[message.id](message.result);
});
send({ id: 1, method: "initialize", params: { protocolVersion: "2024-11-05", capabilities: {},
  clientInfo: { name: "a test", version: "1" } } });
"""


def pages(exchange: Exchange, talk: Talk) -> None:
    """Serve a page with a script."""
    body = b"some data" if exchange.target == "/data" else PAGE
    talk.answer("200 OK", body, "Content-Type: text/html")


@pytest.fixture
def chromium(internet: Internet, program: FindProgram) -> str:
    """The browser, and a site for it."""
    internet.site(HOST, pages)
    return program("chromium")


def user_of(runs: Launches) -> Launches:
    runs.allowlist.write_text(ALLOWLIST, encoding="utf-8")
    return runs


def test_chromium_shows_a_page_of_an_allowed_host(anybody: Launches, chromium: str) -> None:
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom")

    ran = user_of(anybody).run(chromium, *options, f"https://{HOST}/")

    assert "<title>A page</title>" in ran.stdout, ran.stderr


def test_playwright_drives_a_browser(runs: Launches, chromium: str, program: FindProgram) -> None:
    program("playwright")
    packages = TOOLS.parent.resolve()
    (runs.project / "looks.js").write_text(LOOKS, encoding="utf-8")

    ran = user_of(runs).run(
        *(program("node"), "looks.js", packages / "playwright", chromium),
        options=["--allow-ro", packages],
    )

    assert ran.stdout.splitlines() == [
        "200 A page",
        "page.goto: net::ERR_TUNNEL_CONNECTION_FAILED at https://denied.test/",
    ], ran.stderr


def test_playwrights_mcp_server_opens_a_page(
    runs: Launches, chromium: str, program: FindProgram
) -> None:
    server = Path(program("playwright-mcp"))
    packages = TOOLS.parent.resolve()
    (runs.project / "asks.js").write_text(ASKS, encoding="utf-8")
    words = (server.resolve(), "--headless", "--no-sandbox", "--executable-path", chromium)

    ran = user_of(runs).run(
        *(program("node"), "asks.js", program("node"), *words),
        options=["--allow-ro", packages],
    )

    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[0])
    assert "Page Title: A page" in found["content"][0]["text"]
