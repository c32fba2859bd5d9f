"""Takes the picture of the page that README shows: ``make screenshots``.

The system starts on a folder of its own with its sample pictures; two more are added, and a cut of
one of them is looked for. Chromium has to be installed.
"""

import asyncio
import shutil
import tempfile
from pathlib import Path

from playwright.async_api import Page, ViewportSize, async_playwright, expect

from deeplens_streams.host.ports import free_port
from tests.support.browser import FLAGS
from tests.support.photographs import cropped_copy, photograph
from tests.support.system import Process

TAKEN = Path(__file__).parent / "images" / "page.png"
SIZE: ViewportSize = {"width": 1180, "height": 900}
#: Those that `deeplens up` shows on a new folder.
_SAMPLES = 12
_PATIENCE_MS = 120_000


async def take(page: Page, address: str, folder: Path) -> None:
    await page.goto(address)
    await expect(page.locator("#newest button")).to_have_count(_SAMPLES, timeout=_PATIENCE_MS)
    added = []
    for name in ("china", "flower"):
        added.append(folder / f"{name}.jpg")
        added[-1].write_bytes(photograph(name).data)
    await page.set_input_files("#add", added)
    done = page.locator("#uploads li[data-state=completed]")
    await expect(done).to_have_count(len(added), timeout=_PATIENCE_MS)
    part = folder / "a copy of chelsea.jpg"
    part.write_bytes(cropped_copy(photograph("chelsea").data))
    await page.set_input_files("#find", part)
    await expect(page.locator("#results button").first).to_be_visible(timeout=_PATIENCE_MS)
    await page.evaluate("scrollTo(0, 0)")
    await page.screenshot(path=TAKEN)


async def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder, port = Path(made), free_port()
        command = ["deeplens_streams.cli.main", "up", "--with-parent", "--port", str(port)]
        command += ["--data-dir", str(folder / "data")]
        system = Process(folder, port, command, {})
        system.start()
        try:
            await system.until_answers("/health/ready", 180)
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=FLAGS
                )
                await take(await browser.new_page(viewport=SIZE), system.url, folder)
                await browser.close()
        finally:
            await asyncio.to_thread(system.stop)


if __name__ == "__main__":
    asyncio.run(main())
