"""Clients that others' programs make of the OpenAPI document: they are whole, and they work."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deeplens_streams.web import ROUTES
from deeplens_streams.web.openapi import OPERATIONS, document
from tests.support.openapi_typescript import FOLDER
from tests.support.photographs import photograph
from tests.support.programs import program
from tests.support.web_server import TENANT, running

#: What is answered in other than JSON, of which openapi-python-client makes nothing.
NOT_JSON = {
    "GET /api/v1/images/{image_id}/content",
    "GET /api/v1/images/{image_id}/thumbnail",
    "POST /api/v1/admin/audit",
}
#: An ID that is no image's.
NOBODY = "img_00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the document in `openapi.json`."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "openapi.json").write_text(json.dumps(document(ROUTES)), "utf-8")
    return folder


@pytest.fixture(scope="module")
def python_client(api: Path) -> Path:
    """Return the package that openapi-python-client makes, beside `said.txt`, what it said."""
    (api / "settings.yml").write_text("post_hooks: []\n", "utf-8")  # it is not to be pretty
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"]
    made = subprocess.run(
        [*command, "--path", "openapi.json", "--config", "settings.yml", "--output-path", "client"],
        cwd=api,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    (api / "said.txt").write_text(made.stdout + made.stderr, "utf-8")
    return api / "client"


def test_a_python_client_leaves_out_only_what_is_no_json(python_client: Path) -> None:
    said = (python_client.parent / "said.txt").read_text("utf-8")
    warned = re.findall(r"WARNING parsing (.+?) within", said)
    assert set(warned) == NOT_JSON
    assert len(re.findall(r"^WARNING|^ERROR|Unable to", said, re.MULTILINE)) == len(warned)
    models = {path.stem.replace("_", "") for path in (python_client / "models").glob("*.py")}
    # A union is no class.
    names = document(ROUTES)["components"]["schemas"].keys() - {"AuditLine"}
    assert {name.lower() for name in names} <= models
    calls = {path.stem.replace("_", "") for path in (python_client / "api").glob("*/*.py")}
    assert {each.name.lower() for each in OPERATIONS.values()} <= calls


async def test_a_python_client_works(
    python_client: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(python_client.parent))
    client = importlib.import_module("client.client")
    listing = importlib.import_module("client.api.images.list_images")
    status = importlib.import_module("client.api.images.get_image_status")
    async with running(tmp_path) as web:
        uploaded = await web.upload(photograph("rocket").data)
        async with client.Client(base_url=str(web.client.make_url(""))) as caller:
            known: Any = await status.asyncio(uploaded["imageId"], client=caller)
            assert (known.success, known.image_id) == (True, uploaded["imageId"])
            assert known.processing_steps
            unknown: Any = await status.asyncio(NOBODY, client=caller)
            assert (unknown.success, unknown.error_code) == (False, "IMAGE_NOT_FOUND")
            assert unknown.processing_steps == []
            page: Any = await listing.asyncio(client=caller, tenant_id=TENANT)
            assert [each.image_id for each in page.images] == [uploaded["imageId"]]


@pytest.mark.needs("openapi-typescript")
def test_a_typescript_client_compiles(api: Path, tmp_path: Path) -> None:
    tools = Path(program("openapi-typescript"))
    shutil.copy(FOLDER / "client.ts", tmp_path)
    _node(tools / "openapi-typescript/bin/cli.js", api / "openapi.json", "-o", tmp_path / "api.ts")
    _node(tools / "typescript/bin/tsc", "--noEmit", "--strict", tmp_path / "client.ts")


def _node(*command: Path | str) -> None:
    ended = subprocess.run(["node", *command], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
