"""Draws how long a tick takes beside the full join, over the size of the log."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.faces.benchmark.report import SizeReport


def draw_chart(path: Path, sizes: Sequence[SizeReport], lines: Mapping[str, str]) -> None:
    """Write the chart as SVG or PNG, as the file's name says.

    Args:
        path: Of the file.
        sizes: What was measured.
        lines: A label for each name of a measurement to be drawn.

    Raises:
        ConfigurationError: matplotlib is not installed, or knows no such kind of file.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra of the package
    except ModuleNotFoundError:
        raise ConfigurationError(
            "--chart needs matplotlib, which is not installed.", fix="pip install 'recon-pipeline[charts]'"
        ) from None
    ordered = sorted(sizes, key=lambda size: size.events)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(
        xscale="log", yscale="log", xlabel="events in the log", ylabel="seconds", title="What a tick costs"
    )
    for name, label in lines.items():
        axes.plot([size.events for size in ordered], [size.seconds(name) for size in ordered], marker="o", label=label)
    axes.set_xticks([size.events for size in ordered], [f"{size.events / 1e6:g} million" for size in ordered])
    axes.minorticks_off()
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except ValueError as error:
        raise ConfigurationError(f"--chart {path}: {error}", fix="Name a file that ends in .svg or .png.") from error
