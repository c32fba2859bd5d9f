"""The plot of docs/performance.md: what each model finds again, and how far scores lie apart."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.retrieval import BINS, Result

_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")


def draw(results: Sequence[Result], path: Path) -> None:
    """Draw one row of two plots for each gallery; the same figures make the same file."""
    mpl.rcParams["svg.hashsalt"] = "deeplens"
    galleries = list(dict.fromkeys(each.gallery for each in results))
    figure = Figure(figsize=(11, 4.2 * len(galleries)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(galleries), 2, squeeze=False)
    for (recall, scores), gallery in zip(rows, galleries, strict=True):
        of_gallery = [each for each in results if each.gallery == gallery]
        names = [each.transformation for each in of_gallery[0].found][::-1]
        for number, (result, colour) in enumerate(zip(of_gallery, _COLOURS, strict=False)):
            first = [each.first for each in result.found][::-1]
            # Smaller each time, so that equal ones are seen.
            size = 11 - 3 * number
            recall.plot(
                first, range(len(names)), "o", color=colour, label=result.model, markersize=size
            )
            middles = (BINS[:-1] + BINS[1:]) / 2
            scores.fill_between(
                middles, np.array(result.different_shares), step="mid", color=colour, alpha=0.25
            )
            scores.step(middles, result.own_shares, where="mid", color=colour)
        recall.set(xlim=(-0.03, 1.03), xlabel="share whose original comes first")
        recall.set(title=f"{of_gallery[0].pictures} {gallery}")
        recall.set_yticks(range(len(names)), names)
        recall.grid(alpha=0.3)
        recall.legend(loc="lower left")
        scores.set(xlabel="score", ylabel="share of pairs in 0.02 of score", yscale="log")
        scores.set(ylim=(1e-4, 1.2), title="line: own picture, changed; filled: different ones")
        scores.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
