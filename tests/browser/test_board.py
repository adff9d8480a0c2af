"""The board in a real browser: it shows what is posted, and carries on when its server goes away and comes back."""

import json
import os
import shutil
from contextlib import asynccontextmanager

import httpx2
import pytest
from playwright.async_api import async_playwright, expect

from labkit import Cluster, serve
from labkit.apparatus.redis_server import RedisServer
from labkit.broadcast.app import create_app
from labkit.broadcast.parts.scoreboard.settings import Settings
from labkit.broadcast.protocol import HubProtocol

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, PROGRAMS)), None)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("lab"),
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason=f"no Chromium on PATH: none of {', '.join(PROGRAMS)}"),
]

TOKEN = "secret"
# Guards against hanging; a page that has just lost its server may wait for seconds before it tries again.
PATIENCE_MS = 30_000


@asynccontextmanager
async def browsing(**options):
    """Open a page of a Chromium that is there; fail for every error that the page has logged."""
    errors = []
    # Chromium refuses to run its sandbox as root, which is who one is in most containers.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = await browser.new_page(**options)
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        await browser.close()
    assert not errors


class Board:
    """A server of the scoreboard that can go away and come back on its port."""

    def __init__(self, redis_server, http):
        settings = Settings(redis_url=redis_server.url, token=TOKEN, server_name="server 1", channel="board")
        self.app = create_app(settings)
        self.redis = redis_server
        self.http = http
        self.port = 0
        self.server = None

    async def start(self):
        """Start, on the port of the first time."""
        self.server = await serve(self.app, "board", port=self.port, protocol=HubProtocol)
        self.port = self.server.port

    async def post(self, body):
        """Post a goal."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = await self.http.post(f"{self.server.url}/goal", content=json.dumps(body).encode(), headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def board(lab, monkeypatch):
    """Give a running board with a Redis of its own."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    async with RedisServer() as redis_server, httpx2.AsyncClient() as http:
        board = Board(redis_server, http)
        await board.start()
        yield board
        await board.server.stop()


async def shown(page):
    """Return the news on the page, oldest first, as one text each."""
    items = await page.locator("#news li").all_inner_texts()
    return [" ".join(item.split()) for item in reversed(items)]


async def until(page, text):
    """Wait until the newest piece of news is this."""
    await expect(page.locator("#news li").first).to_contain_text(text, timeout=PATIENCE_MS)


async def is_live(page):
    """Wait until the page says that it is connected."""
    await expect(page.locator("#state")).to_have_text("Live", timeout=PATIENCE_MS)


async def test_goal_appears_on_the_page_and_markup_stays_text(board):
    """Goals, news and what is neither; what was before the page was opened, too."""
    await board.post({"text": "Kick-off"})
    async with browsing() as page:
        await page.goto(board.server.url)
        await is_live(page)
        await until(page, "Kick-off")
        await board.post({"home": 1, "away": 0, "scorer": "Ada", "minute": 12})
        await until(page, "Ada")
        await expect(page.locator("#home")).to_have_text("1")
        await expect(page.locator("#away")).to_have_text("0")
        await expect(page.locator("#announcement")).to_contain_text("Ada", timeout=PATIENCE_MS)
        markup = "<img src=x onerror=\"document.title='taken'\">"
        for body in ({"text": markup}, {"home": 2, "away": 0, "scorer": markup}, [markup], {markup: 1}):
            await board.post(body)
        for body in (7, None, {"home": "2", "away": None}, {"home": 1.5, "away": 0}):
            last = await board.post(body)
        await expect(page.locator("#position")).to_contain_text(f"message {last['seq']}")
        news = await shown(page)
        assert len(news) == last["seq"]
        assert news[:3] == ["Kick-off", "1:0 12′ Ada", markup]
        assert news[-3:] == ["null", '{"home":"2","away":null}', '{"home":1.5,"away":0}']
        assert await page.locator("#news img").count() == 0
        assert await page.title() == "Scoreboard"


async def test_page_carries_on_when_its_server_comes_back(board):
    """Without a reload; what was posted meanwhile, through another server, is there, once and in order."""
    async with browsing() as page, httpx2.AsyncClient() as http:
        await page.goto(board.server.url)
        await is_live(page)
        await board.post({"text": "news 0"})
        await until(page, "news 0")
        await page.evaluate("document.body.dataset.loaded = 'once'")
        other = await serve(board.app, "other", protocol=HubProtocol)
        await board.server.stop()
        await expect(page.locator("#state")).to_contain_text("Not connected", timeout=PATIENCE_MS)
        for number in (1, 2, 3):
            answer = await http.post(
                f"{other.url}/goal", json={"text": f"news {number}"}, headers={"Authorization": f"Bearer {TOKEN}"}
            )
            assert answer.status_code == 200
        await other.stop()
        await board.start()
        await until(page, "news 3")
        await is_live(page)
        await board.post({"text": "news 4"})
        await until(page, "news 4")
        assert await shown(page) == [f"news {number}" for number in range(5)]
        assert await page.evaluate("document.body.dataset.loaded") == "once"


async def test_page_carries_on_behind_nginx_when_its_server_is_killed(monkeypatch):
    """Real processes: the page comes back by way of another one, without a reload, and misses nothing."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    async with Cluster(servers=2) as cluster, browsing() as page, httpx2.AsyncClient() as http:

        async def post(number):
            headers = {"Authorization": f"Bearer {cluster.token}"}
            answer = await http.post(f"{cluster.url}/goal", json={"text": f"news {number}"}, headers=headers)
            assert answer.status_code == 200, answer.text

        await page.goto(cluster.url)
        await is_live(page)
        await post(0)
        await until(page, "news 0")
        name = (await page.locator("#server").inner_text()).removeprefix("Connected to ")
        [server] = [each for each in cluster.servers if each.name == name]
        server.kill()
        for number in range(1, 6):
            await post(number)
        await until(page, "news 5")
        assert await shown(page) == [f"news {number}" for number in range(6)]
        await expect(page.locator("#server")).not_to_contain_text(name)


async def test_page_says_when_news_may_be_missing(board):
    """Here Redis has lost everything while the page was away."""
    async with browsing() as page:
        await page.goto(board.server.url)
        await is_live(page)
        await board.post({"text": "before"})
        await until(page, "before")
        await board.server.stop()
        await board.redis.restart()
        await board.start()
        await is_live(page)
        await until(page, "Some news may be missing here")
        await board.post({"text": "after"})
        await until(page, "after")
        assert len(await shown(page)) == 3


async def test_page_posts(board):
    """The form: a wrong token is told, a right one posts, and the token is kept nowhere."""
    async with browsing() as page:
        await page.goto(board.server.url)
        await is_live(page)
        await page.get_by_text("Post a goal").click()
        await page.get_by_label("Token").fill("wrong")
        await page.get_by_label("Home").fill("1")
        await page.get_by_label("Away").fill("0")
        await page.get_by_label("Scorer").fill("Ada")
        await page.get_by_role("button", name="Post").click()
        await expect(page.locator("#answer")).to_contain_text("Authorization", timeout=PATIENCE_MS)
        await page.get_by_label("Token").fill(TOKEN)
        await page.get_by_role("button", name="Post").click()
        await expect(page.locator("#answer")).to_have_text("Posted as message 1.", timeout=PATIENCE_MS)
        await until(page, "Ada")
        assert await page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        await page.reload()
        await page.get_by_text("Post a goal").click()
        await expect(page.get_by_label("Token")).to_have_value("")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_page_fits_a_small_screen_and_can_be_read(board, scheme):
    """No sideways scrolling at 320 pixels, and contrast of 4.5 to 1 or more for every text."""
    await board.post({"home": 12, "away": 10, "scorer": "x" * 300, "minute": 90})
    await board.post({"text": "News that is long enough to need a second line on a telephone"})
    await board.post({"a": ["key", "value"] * 20})
    async with browsing(viewport={"width": 320, "height": 640}, color_scheme=scheme) as page:
        await page.goto(board.server.url)
        await until(page, "key")
        await page.evaluate("document.querySelector('details').open = true")
        assert await page.evaluate("document.documentElement.scrollWidth") == 320
        poor = await page.evaluate(CONTRASTS)
        assert not [each for each in poor if each["contrast"] < 4.5], poor


# The contrast of every text with the nearest background behind it, as WCAG 2 counts it; no colour here has an alpha.
CONTRASTS = """() => {
  const channels = (color) => color.match(/[0-9.]+/g).map(Number);
  const linear = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = (color) => {
    const [r, g, b] = channels(color).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return channels(color)[3] === 0 ? behind(element.parentElement) : color;
  };
  const result = [];
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    const [one, two] = [getComputedStyle(element).color, behind(element)].map(luminance);
    const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    result.push({ text: element.textContent.slice(0, 30), contrast });
  }
  return result;
}"""
