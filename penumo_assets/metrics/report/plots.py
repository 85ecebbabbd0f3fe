"""The charts of a report, from the content of report.json. ``key`` ends a chart's name, which is unique on a page."""

from markupsafe import Markup

from penumo_assets.metrics.report.content import Report
from penumo_assets.metrics.report.measured import Calibration, OneAgainstRest, OperatingPoint
from penumo_assets.metrics.report.svg import Chart


def roc_chart(part: OneAgainstRest, key: str = "") -> Markup | None:
    """ROC curve with the operating points reached on test."""
    curve = part.curves.roc
    if curve is None:
        return None
    chart = Chart(
        f"roc{key}",
        f"ROC curve of {part.name} on test",
        f"True positive rate against false positive rate; the area under the curve is {part.roc_auc.value:.3f}.",
        "1 − specificity",
        "Sensitivity",
    )
    if curve.low is not None and curve.high is not None:
        chart.band(curve.grid, curve.low, curve.high)
    chart.line([0, 1], [0, 1], "chance", "Chance")
    chart.line(curve.false_positive_rate, curve.true_positive_rate, "series-1", "Model")
    for row in part.operating_points:
        point = _point(row)
        if point is not None:
            chart.points([1 - point[1]], [point[0]], "series-2")
    return chart.svg()


def pr_chart(part: OneAgainstRest, key: str = "") -> Markup | None:
    """Precision-recall curve with the prevalence as its chance line."""
    curve, prevalence = part.curves.pr, part.prevalence
    if curve is None or prevalence is None:
        return None
    chart = Chart(
        f"pr{key}",
        f"Precision-recall curve of {part.name} on test",
        f"Precision against recall; average precision {part.pr_auc.value:.3f}, prevalence {prevalence:.3f}.",
        "Recall (sensitivity)",
        "Precision (positive predictive value)",
    )
    chart.line([0, 1], [prevalence, prevalence], "chance", f"Prevalence {prevalence:.2f}")
    chart.line(curve.recall, curve.precision, "series-1", "Model")
    return chart.svg()


def reliability_chart(section: Calibration, key: str = "") -> Markup | None:
    """Observed frequency against predicted probability, before and after calibration."""
    both = {"uncalibrated": section.uncalibrated, "calibrated": section.calibrated}
    drawn = [(name, curve) for name, curve in both.items() if curve is not None]
    if not drawn:
        return None
    chart = Chart(
        f"reliability{key}",
        f"Reliability on test: {section.event}",
        "Observed frequency against mean predicted probability in ten bins; the diagonal is perfect calibration. "
        "Larger discs hold more images.",
        "Mean predicted probability",
        "Observed frequency",
    )
    chart.line([0, 1], [0, 1], "chance", "Perfect")
    for name, curve in drawn:
        css = "series-1" if name == "calibrated" else "series-3"
        legend = "After calibration" if name == "calibrated" else "Before"
        bins = [
            (predicted, observed, count)
            for predicted, observed, count in zip(curve.mean_predicted, curve.observed, curve.count, strict=True)
            if predicted is not None and observed is not None
        ]
        chart.line([b[0] for b in bins], [b[1] for b in bins], css, legend)
        total = sum(b[2] for b in bins)
        chart.points([b[0] for b in bins], [b[1] for b in bins], css, [2.5 + 7 * (b[2] / total) ** 0.5 for b in bins])
    return chart.svg()


def decision_chart(part: OneAgainstRest, key: str = "") -> Markup | None:
    """Net benefit of the model against treating everyone and treating no one."""
    curve = part.decision_curve
    if curve is None:
        return None
    top = max(*curve.model, *curve.treat_all, 0.05)
    high = next(limit for limit in (0.1, 0.2, 0.25, 0.5, 0.75, 1.0) if top <= limit)
    chart = Chart(
        f"decision{key}",
        f"Decision curve of {part.name} on test",
        "Net benefit against threshold probability: the model, treating everyone, and treating no one (zero).",
        "Threshold probability",
        "Net benefit",
        y_limits=(-high / 5, high),
        y_ticks=6,
    )
    chart.line([0, 1], [0, 0], "chance", "Treat no one")
    chart.line(curve.thresholds, curve.model, "series-1", "Model")
    chart.line(curve.thresholds, curve.treat_all, "series-3", "Treat everyone")
    return chart.svg()


def risk_chart(report: Report) -> Markup | None:
    """Share of wrong decisions among the surest images, by their share."""
    section = report.selective
    if not section.coverage:
        return None
    chart = Chart(
        "risk",
        "Risk by coverage on test",
        "Share of wrong decisions among the images that the model is surest of, against their share of all images.",
        "Share of images with an answer",
        "Share of wrong answers",
        y_limits=(0.0, next(top for top in (0.1, 0.25, 0.5, 1.0) if max(section.risk) <= top)),
    )
    chart.line(section.coverage, section.risk, "series-1", "Model")
    return chart.svg()


def confusion_chart(report: Report) -> Markup:
    """Test images by label and decision, each cell as dark as its share of its label's images."""
    found = report.confusion_matrix.test
    side, left, top, count = 84, 130, 56, len(found.labels)
    parts = [Markup('<text class="mid" x="{}" y="18">Called, test images</text>').format(left + side * count / 2)]
    for row, (label, counts) in enumerate(zip(found.labels, found.counts, strict=True)):
        middle = top + side * (row + 0.5) + 4
        parts.append(Markup('<text class="end" x="{}" y="{}">{}</text>').format(left - 10, middle, label))
        parts.append(
            Markup('<text class="mid" x="{}" y="{}">{}</text>').format(left + side * (row + 0.5), top - 12, label)
        )
        for column, images in enumerate(counts):
            x, share = left + side * column, images / max(sum(counts), 1)
            parts.append(
                Markup(
                    '<rect class="cell" x="{}" y="{}" width="{}" height="{}" fill-opacity="{:.2f}"/>'
                    '<text class="mid" x="{}" y="{}">{}</text>'
                ).format(x, top + side * row, side, side, 0.6 * share, x + side / 2, middle, images)
            )
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" xmlns="http://www.w3.org/2000/svg"><title>Confusion matrix'
        "</title><desc>Rows: label. Columns: what the model called the image.</desc>{}</svg>"
    ).format(left + side * count + 20, top + side * count + 20, Markup("").join(parts))


def _point(row: OperatingPoint) -> tuple[float, float] | None:
    if row.metrics is None:
        return None
    recall, specificity = row.metrics["recall"].value, row.metrics["specificity"].value
    return None if recall is None or specificity is None else (recall, specificity)
