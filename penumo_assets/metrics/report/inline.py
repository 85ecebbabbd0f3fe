"""The charts as pictures that carry their own colours, for places without the report's style sheet."""

import base64

from markupsafe import Markup

from penumo_assets.metrics.report import plots
from penumo_assets.metrics.report.content import Report

_STYLE = (
    "<style>svg{background:#fff}text{fill:#333;font:12px sans-serif}.mid{text-anchor:middle}.end{text-anchor:end}"
    ".grid{stroke:#ddd}.line{fill:none;stroke-width:2.2}.line.series-1{stroke:#0b5fa5}.line.series-2{stroke:#a3410a}"
    ".line.series-3{stroke:#5d6b1f;stroke-dasharray:7 3}.line.chance{stroke:#777;stroke-width:1.4;stroke-dasharray:2 4}"
    ".dot.series-1{fill:#0b5fa5}.dot.series-2{fill:#a3410a}.dot.series-3{fill:#fff;stroke:#5d6b1f}"
    ".band{fill:#0b5fa5;opacity:.16}</style>"
)


def chart_data_uris(report: Report) -> dict[str, str]:
    """``data:image/svg+xml;base64,...`` of each chart that the report can draw.

    Names are ``roc``, ``precision_recall``, ``reliability`` and ``decision_curve``; what is undefined is left out.
    """
    drawn = {
        "roc": plots.roc_chart(report),
        "precision_recall": plots.pr_chart(report),
        "reliability": plots.reliability_chart(report),
        "decision_curve": plots.decision_chart(report),
    }
    return {name: _data_uri(chart) for name, chart in drawn.items() if chart is not None}


def _data_uri(chart: Markup) -> str:
    drawing = str(chart).split("</svg>", 1)[0] + "</svg>"
    styled = drawing.replace("</desc>", f"</desc>{_STYLE}", 1)
    return "data:image/svg+xml;base64," + base64.b64encode(styled.encode("utf-8")).decode("ascii")
