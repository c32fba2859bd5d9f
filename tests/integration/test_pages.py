"""The pages in a real browser, as people use them."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.support.api_keys import OPERATOR, tenant_key, uploaded
from tests.support.browser import chromium
from tests.support.photographs import cropped_copy, photograph
from tests.support.system import until
from tests.support.web_server import Web, done_row, running

pytestmark = pytest.mark.browser
# A deadline, not a measure: the machine may be busy.
expect.set_options(timeout=30_000)

NAMES = ("rocket", "coffee", "chelsea", "china")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Web]:
    async with running(tmp_path / "data") as found:
        found.indexes = True
        yield found


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with chromium(tmp_path) as browser:
        opened = await browser.new_page(viewport={"width": 1180, "height": 900})
        problems: list[str] = []
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.on(
            "console",
            lambda message: (
                problems.append(message.text) if "Content Security Policy" in message.text else None
            ),
        )
        yield opened
    assert problems == []


def address(served: Web, path: str = "/") -> str:
    return str(served.client.make_url(path))


def pictures(folder: Path) -> list[Path]:
    """Return copies of photographs, so that their names are known."""
    paths = []
    for name in NAMES:
        path = folder / f"{name}.jpg"
        path.write_bytes(photograph(name).data)
        paths.append(path)
    return paths


async def test_with_keys_the_page_asks_for_one(tmp_path: Path, page: Page) -> None:
    async with running(tmp_path / "data", admin_key=OPERATOR) as served:
        served.indexes = True
        key = await tenant_key(served, "acme")
        await uploaded(served, key)
        await page.goto(address(served))
        await expect(page.locator("#error")).to_contain_text("Send an API key")
        await expect(page.locator("#newest li")).to_have_count(0)
        await page.fill("#key", key)
        await page.press("#key", "Enter")
        await expect(page.locator("#tenant")).to_have_value("acme")
        await expect(page.locator("#newest li")).to_have_count(1)
        # The picture itself came with the key, too. Asked from here: a page that polls itself would
        # evaluate text, which its own policy forbids.
        image = page.locator("#newest img")

        async def is_shown() -> bool:
            return bool(await image.evaluate("image => image.naturalWidth > 0"))

        await until(is_shown, "the picture is shown", seconds=10)
        await page.set_input_files("#add", pictures(tmp_path)[1])
        await expect(page.locator("#uploads li")).to_have_attribute("data-state", "completed")
        await page.goto(address(served, "/tables"))
        await expect(page.locator("#error")).to_contain_text("scope admin")
        await page.fill("#key", OPERATOR)
        await page.press("#key", "Enter")
        await expect(page.locator("#rows tr")).to_have_count(2)


async def test_upload_follow_and_find(served: Web, page: Page, tmp_path: Path) -> None:
    await page.goto(address(served))
    await expect(page.locator("#warning")).to_contain_text("tests")
    await expect(page.locator("#health")).to_have_text("ready")
    await expect(page.locator("#newest-empty")).to_be_visible()

    await page.set_input_files("#add", pictures(tmp_path))
    done = page.locator("#uploads li[data-state=completed]")
    await expect(done).to_have_count(len(NAMES))
    await expect(done.first.locator(".steps span")).to_have_count(4)
    await expect(page.locator("#newest button")).to_have_count(len(NAMES))

    # A stored picture finds the others, and not itself.
    await page.get_by_role("button", name="Find pictures like rocket.jpg").click()
    await expect(page.locator("#results button")).to_have_count(len(NAMES) - 1)
    await expect(page.locator("#results-title")).to_be_focused()

    # A copy finds its original, first.
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(cropped_copy(photograph("coffee").data))
    await page.set_input_files("#find", copy)
    await expect(page.locator("#results button")).to_have_count(len(NAMES))
    first = page.locator("#results button").first
    await expect(first.locator(".name")).to_have_text("coffee.jpg")
    await expect(first.locator(".score")).to_have_text(re.compile(r"^[01]\.\d{3}$"))
    assert await first.locator("img").evaluate("image => image.decode().then(() => true)")


async def test_a_dropped_picture(served: Web, page: Page) -> None:
    await page.goto(address(served))
    data = list(photograph("rocket").data)
    transfer = await page.evaluate_handle(
        """bytes => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "dropped.jpg"));
          return transfer;
        }""",
        data,
    )
    await page.dispatch_event("#add-zone", "drop", {"dataTransfer": transfer})
    await expect(page.locator("#uploads li[data-state=completed] .name")).to_have_text(
        "dropped.jpg"
    )


async def test_errors_are_the_interfaces_own_sentences(
    served: Web, page: Page, tmp_path: Path
) -> None:
    await page.goto(address(served))
    drawing = tmp_path / "drawing.jpg"
    drawing.write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    await page.set_input_files("#add", drawing)
    await expect(page.locator("#uploads .failed")).to_contain_text("none of JPEG")
    await page.set_input_files("#find", drawing)
    await expect(page.locator("#error")).to_contain_text("none of JPEG")
    await page.fill("#tenant", "Not A Tenant")
    await page.locator("#tenant").press("Enter")
    await page.locator("#tenant").blur()
    await expect(page.locator("#error")).to_contain_text("A tenant ID is")


async def test_names_are_text_and_never_markup(served: Web, page: Page) -> None:
    name = "<img src=x onerror=document.title='owned'>.jpg"
    answer = await served.upload(photograph("rocket").data, name)
    await page.goto(address(served))
    await expect(page.locator("#newest .name")).to_have_text(name)
    served.rows.held[answer["imageId"]].errorMessage = name
    await page.goto(address(served, "/tables"))
    await expect(page.locator("#rows tr td").last).to_have_text(name)
    assert "owned" not in await page.title()


async def test_without_websockets_the_page_polls(served: Web, page: Page, tmp_path: Path) -> None:
    await page.add_init_script(
        "window.WebSocket = class extends EventTarget {"
        "constructor() { super(); setTimeout(() => this.dispatchEvent(new Event('close')), 0); } }"
    )
    await page.goto(address(served))
    await page.set_input_files("#add", pictures(tmp_path)[:1])
    await expect(page.locator("#uploads li[data-state=completed]")).to_have_count(1)


async def test_keyboard_alone(served: Web, page: Page) -> None:
    await served.upload(photograph("rocket").data, "rocket.jpg")
    await served.upload(photograph("coffee").data, "coffee.jpg")
    await page.goto(address(served))
    await expect(page.locator("#newest button")).to_have_count(2)
    for _ in range(20):
        await page.keyboard.press("Tab")
        label = await page.evaluate("document.activeElement.getAttribute('aria-label')")
        if label == "Find pictures like rocket.jpg":
            break
    await page.keyboard.press("Enter")
    await expect(page.locator("#results .name")).to_have_text(["coffee.jpg"])


async def test_the_status_table(served: Web, page: Page) -> None:
    ids = [f"img_00000000-0000-4000-8000-0000000000{number:02d}" for number in range(60)]
    for image_id in ids:
        served.rows.held[image_id] = done_row(image_id, models=["resnet50"])
    await page.goto(address(served, "/tables"))
    await expect(page.locator("#rows tr")).to_have_count(50)
    await expect(page.locator("#worker")).to_contain_text("http://")
    await page.click("#next")
    await expect(page.locator("#rows tr")).to_have_count(10)
    await page.fill("#image-id", ids[3])
    await page.keyboard.press("Enter")
    await expect(page.locator("#found")).to_contain_text('"status": "completed"')
    await page.fill("#image-id", "x")
    await page.keyboard.press("Enter")
    await expect(page.locator("#error")).to_contain_text("An image ID is")


async def test_every_operation_can_be_tried(served: Web, page: Page, tmp_path: Path) -> None:
    await page.goto(address(served, "/docs#listImages"))
    listing = page.locator("#listImages")
    await listing.locator("[name=tenantId]").fill("demo")
    await listing.get_by_role("button", name="Send").click()
    await expect(listing.locator("pre").last).to_contain_text('"images": []')

    upload = page.locator("#uploadImage")
    await upload.locator("summary").click()
    await upload.locator("[name=file]").set_input_files(pictures(tmp_path)[:1])
    await upload.locator("[name=tenantId]").fill("demo")
    await upload.locator("[name='more fields']").fill("tags[colour]=red")
    await upload.get_by_role("button", name="Send").click()
    await expect(upload.locator("pre").first).to_contain_text("202")
    assert served.published[0].tenantId == "demo"
    image = await served.storage.find(served.published[0].image_id)
    assert image is not None
    assert image.tags == {"colour": "red"}

    await listing.locator("[name=tenantId]").fill("Not A Tenant")
    await listing.get_by_role("button", name="Send").click()
    await expect(listing.locator("pre").last).to_contain_text("INVALID_TENANT_ID")
