"""The charts as pictures that carry their own colours, for places without the report's style sheet."""

import base64
import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from penumo_assets.metrics.records import Estimate
from penumo_assets.metrics.report import plots
from penumo_assets.metrics.report.content import Report
from penumo_assets.metrics.report.measured import OneAgainstRest
from penumo_assets.metrics.report.svg import Chart

_STYLE = (
    "<style>svg{background:#fff}text{fill:#333;font:12px sans-serif}.mid{text-anchor:middle}.end{text-anchor:end}"
    ".grid{stroke:#ddd}.line{fill:none;stroke-width:2.2}.line.series-1{stroke:#0b5fa5}.line.series-2{stroke:#a3410a}"
    ".line.series-3{stroke:#5d6b1f;stroke-dasharray:7 3}.line.chance{stroke:#777;stroke-width:1.4;stroke-dasharray:2 4}"
    ".dot.series-1{fill:#0b5fa5}.dot.series-2{fill:#a3410a}.dot.series-3{fill:#fff;stroke:#5d6b1f}"
    ".band{fill:#0b5fa5;opacity:.16}.cell{fill:#0b5fa5;stroke:#ddd}</style>"
)


def charts(report: Report) -> dict[str, str]:
    """An SVG document of each chart that the report can draw; what is undefined is left out.

    Names are ``roc``, ``precision_recall``, ``reliability`` and ``decision_curve``, with several classes followed by
    ``_`` and the class, and ``confusion_matrix``.
    """
    drawn: dict[str, Markup | None] = {}
    for part in report.parts:
        of = _of(report, part)
        drawn |= {
            f"roc{of}": plots.roc_chart(part),
            f"precision_recall{of}": plots.pr_chart(part),
            f"reliability{of}": plots.reliability_chart(part.calibration),
            f"decision_curve{of}": plots.decision_chart(part),
        }
    drawn["confusion_matrix"] = plots.confusion_chart(report)
    return {name: _styled(chart) for name, chart in drawn.items() if chart is not None}


def chart_data_uris(report: Report) -> dict[str, str]:
    """The same as ``data:image/svg+xml;base64,...``."""
    return {name: _data_uri(svg) for name, svg in charts(report).items()}


def chart_captions(report: Report) -> dict[str, str]:
    """A sentence for each chart: what it shows, its area, and the operating points that the ROC curve marks."""
    captions: dict[str, str] = {}
    for part in report.parts:
        of = _of(report, part)
        points = [
            f"{row.name}: sensitivity {row.metrics['recall'].value:.2f}, "
            f"specificity {row.metrics['specificity'].value:.2f}"
            for row in part.operating_points
            if row.metrics and None not in (row.metrics["recall"].value, row.metrics["specificity"].value)
        ]
        test = f"of {part.name} on test"
        captions |= {
            f"roc{of}": f"ROC curve {test}, {_area(part.roc_auc)}. " + "; ".join(["Points", *points]),
            f"precision_recall{of}": f"Precision against recall {test}, {_area(part.pr_auc)}.",
            f"reliability{of}": f"Observed frequency {test} against its probability, as it is and calibrated.",
            f"decision_curve{of}": "Net benefit on test against the probability at which one would act.",
        }
    captions["confusion_matrix"] = "Test images by label (rows) and by what the model called them (columns)."
    return captions


def _of(report: Report, part: OneAgainstRest) -> str:
    """The class for the name of a file."""
    return f"_{file_word(part.name)}" if report.data.positive_class is None else ""


def file_word(name: str) -> str:
    """A class's name as the names of files and of MLflow's metrics can hold it."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)


def _area(found: Estimate) -> str:
    if found.value is None:
        return "area undefined"
    interval = "" if found.low is None or found.high is None else f" ({found.low:.3f} to {found.high:.3f})"
    return f"area {found.value:.3f}{interval}"


def learning_curve(history: Sequence[Mapping[str, float | None]]) -> str | None:
    """``data:image/svg+xml;base64,...`` of the losses and the validation ROC-AUC by epoch; None for fewer than two."""
    if len(history) < 2:
        return None
    epochs = [float(record["epoch"] or 0) for record in history]
    losses = [record[name] or 0.0 for record in history for name in ("train_loss", "validation_loss")]
    top = max(1.0, *losses)
    chart = Chart(
        "learning",
        "Learning curve",
        "Loss on training and validation data, and ROC-AUC on validation, by epoch.",
        "Epoch",
        "Loss, ROC-AUC",
        x_limits=(epochs[0], epochs[-1]),
        y_limits=(0.0, top),
        x_ticks=min(10, len(epochs) - 1),
    )
    for name, style in (
        ("train_loss", "series-1"),
        ("validation_loss", "series-2"),
        ("validation_roc_auc", "series-3"),
    ):
        known = [(epoch, record[name]) for epoch, record in zip(epochs, history, strict=True) if record.get(name)]
        chart.line([epoch for epoch, _ in known], [value or 0.0 for _, value in known], style, name)
    return _data_uri(_styled(chart.svg()))


LEARNING_CAPTION = "By epoch: loss on training (blue) and validation (brown), ROC-AUC on validation (green, dashed)."


def _styled(chart: Markup) -> str:
    drawing = str(chart).split("</svg>", 1)[0] + "</svg>"
    return drawing.replace("</desc>", f"</desc>{_STYLE}", 1)


def _data_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8")).decode("ascii")
