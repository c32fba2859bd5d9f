"""The first start's demonstration: a dozen pictures in, one search."""

import io
from contextlib import closing
from pathlib import Path

from rich.console import Console

from deeplens_streams.cli import console as printing
from deeplens_streams.cli.upload_batch import UploadRun
from deeplens_streams.cli.upload_files import find_files
from deeplens_streams.errors import DeepLensError

TENANT = "demo"
SAMPLES = Path(__file__).parents[1] / "samples"
_QUERY = "coffee.jpg"


class Demo:
    """Uploads the sample pictures, waits for them and searches. `stop` ends it early."""

    def __init__(self, url: str, console: Console) -> None:
        self._console = console
        self._run = UploadRun(url, tenant=TENANT, parallel=4, memory=None)

    def __call__(self) -> None:
        with closing(self._run):
            images = self._ingest()
            if images:
                self._search()

    def stop(self) -> None:
        self._run.close()

    def _ingest(self) -> list[str]:
        files = find_files([SAMPLES]).pictures
        if not files:
            raise DeepLensError("The sample pictures are not installed.")
        with printing.progress_bar(self._console) as progress:
            task = progress.add_task("sample pictures", total=len(files))
            outcomes = list(self._run.upload(files))
            images = [outcome.image_id for outcome in outcomes if outcome.image_id]
            done = []
            for status in self._run.follow(images):
                progress.advance(task)
                if status.status == "completed":
                    done.append(status.image_id)
        self._console.print(f"{len(done)} of {len(files)} sample pictures completed")
        return done

    def _search(self) -> None:
        answer = self._run.api.search(
            altered_copy(SAMPLES / _QUERY), tenant=TENANT, limit=5, threshold=0.0
        )
        self._console.print(f"most like a cropped, recompressed copy of {_QUERY}:")
        self._console.print(printing.hits_table(answer.results))
        if answer.message:
            self._console.print(answer.message, style="yellow")


def altered_copy(path: Path) -> bytes:
    """Return the picture as it comes back from elsewhere: cropped, smaller, recompressed."""
    from PIL import Image  # noqa: PLC0415 - only the demonstration needs it

    with Image.open(path) as opened:
        width, height = opened.size
        box = (width // 16, height // 16, width - width // 16, height - height // 16)
        copy = opened.convert("RGB").crop(box)
    copy = copy.resize((copy.width * 4 // 5, copy.height * 4 // 5), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    copy.save(buffer, "JPEG", quality=70)
    return buffer.getvalue()
