"""report.html: one self-contained file without scripts, everything escaped, from the content of report.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from penumo_assets.metrics.report import plots, prose
from penumo_assets.metrics.report.content import CohortFlow, Report
from penumo_assets.metrics.report.context import Context
from penumo_assets.metrics.report.groups import MIN_PER_CLASS
from penumo_assets.metrics.report.measured import OneAgainstRest
from penumo_assets.metrics.report.methods import flow_notes, partitioning, preparation
from penumo_assets.metrics.report.svg import bars, interval_bar
from penumo_assets.metrics.subgroups import group_order

SECTIONS = {
    "summary": "Summary",
    "intended-use": "Intended use and study",
    "data": "Data",
    "flow": "Dataset flow",
    "reference-standard": "Reference standard",
    "partitions": "Partitions",
    "model": "Model",
    "methods": "Methods of evaluation",
    "performance": "Performance",
    "operating-points": "Operating points",
    "calibration": "Calibration and usefulness",
    "selective": "Answers withheld",
    "subgroups": "Subgroups",
    "shortcuts": "Shortcut baselines",
    "comparison": "Comparison with the reference model",
    "segmentation": "Lung segmentation",
    "explanation": "Explanations",
    "failures": "Worst errors",
    "limits": "Limits",
    "provenance": "Versions and availability",
    "checklist": "Checklist",
}
TABLE_ROWS = 21


@dataclass(frozen=True)
class Picture:
    """Data URIs of one failure: the image with its lung contour, and its Grad-CAM overlay if there is one."""

    image: str
    overlay: str | None


def render_html(report: Report, context: Context | None = None, gallery: Sequence[Picture | None] = ()) -> str:
    """The page.

    Parameters
    ----------
    report : the content of report.json.
    context : statements of the study (``aims``, ``reference_standard`` ...), plain text.
    gallery : one entry per ``report.failures``; missing ones show no picture.
    """
    context = context or Context()
    pictures = [*gallery, *[None] * (len(report.failures) - len(gallery))]
    low = 0.0 if any(value < 0.5 for value in _forest_values(report)) else 0.5
    environment = _environment()
    environment.filters["forest"] = lambda e: interval_bar(e.value, e.low, e.high, (low, 1.0))
    return environment.get_template("template.html").render(
        r=report,
        context=context,
        css=Markup(_read("style.css")),
        confidence=f"{report.settings.confidence * 100:g}\u00a0%",
        contents=[(key, title) for key, title in SECTIONS.items() if key != "comparison" or _compared(report)],
        titles=SECTIONS,
        parts=[_drawn(part, f"-{number}") for number, part in enumerate(report.parts)],
        risk=plots.risk_chart(report),
        risk_table=_table(
            ["Images with an answer", "Wrong answers"], [report.selective.coverage, report.selective.risk]
        ),
        compared=_compared(report),
        chosen_reliability=None if report.data.positive_class else plots.reliability_chart(report.calibration),
        gallery=pictures,
        flow=_flow(report.data.flow),
        preparation=preparation(context.prepared_with),
        partitioning=partitioning(report),
        findings=prose.findings(report),
        limits=prose.limits(report),
        model_facts=_model_facts(report.model.model_dump(mode="json")),
        group_names=_group_names(report),
        forest_low=low,
        min_per_class=MIN_PER_CLASS,
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"num": _num, "percent": _percent, "words": prose.words, "signed": _signed, "p": _p}
    return environment


@cache
def _read(name: str) -> str:
    return files("penumo_assets.metrics.report").joinpath(name).read_text(encoding="utf-8")


def _num(value: float | None, digits: int = 3) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}\u00a0%"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _table(header: Sequence[str], columns: Sequence[Sequence[float | int | None]]) -> Markup:
    """A plain table of at most ``TABLE_ROWS`` evenly chosen rows."""
    count = len(columns[0])
    keep = sorted({round(i * (count - 1) / (TABLE_ROWS - 1)) for i in range(TABLE_ROWS)}) if count else []
    head = Markup("").join(Markup('<th scope="col" class="n">{}</th>').format(name) for name in header)
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup('<td class="n">{}</td>').format("–" if column[i] is None else f"{column[i]:.3g}")
                for column in columns
            )
        )
        for i in keep
    )
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, body)


def _compared(report: Report) -> bool:
    return any(part.comparison for part in report.parts)


def _drawn(part: OneAgainstRest, key: str) -> dict[str, Any]:
    """A class with its charts, and the same numbers as tables."""
    tables = {}
    roc, pr = part.curves.roc, part.curves.pr
    if roc and pr:
        tables["roc"] = _table(["1 − specificity", "Sensitivity"], [roc.false_positive_rate, roc.true_positive_rate])
        tables["pr"] = _table(["Recall", "Precision"], [pr.recall, pr.precision])
    curve = part.calibration.calibrated or part.calibration.uncalibrated
    if curve:
        tables["reliability"] = _table(
            ["Bin from", "Images", "Mean predicted", "Observed"],
            [curve.edges[:-1], curve.count, curve.mean_predicted, curve.observed],
        )
    decision = part.decision_curve
    if decision:
        tables["decision"] = _table(
            ["Threshold probability", "Model", "Treat everyone"],
            [decision.thresholds, decision.model, decision.treat_all],
        )
    charts = {
        "roc": plots.roc_chart(part, key),
        "pr": plots.pr_chart(part, key),
        "reliability": plots.reliability_chart(part.calibration, key),
        "decision": plots.decision_chart(part, key),
    }
    return {"part": part, "charts": charts, "tables": tables}


def _flow(flow: Mapping[str, CohortFlow] | None) -> list[dict[str, Any]]:
    """Bars per cohort: what arrived, what was excluded and why, what is left."""
    rows = []
    for cohort, counts in (flow or {}).items():
        used = counts.accepted + sum(counts.rejected.values())
        arrived = used if counts.landed is None else counts.landed
        lines = [(f"arrived: {arrived}", arrived)]
        lines += [
            (f"excluded, {prose.words(reason or 'no_reason_recorded')}: {count}", count)
            for reason, count in sorted(counts.rejected.items(), key=lambda item: (-item[1], item[0]))
        ]
        if (pending := arrived - used) > 0:
            lines.append((f"not processed: {pending}", pending))
        lines.append((f"usable: {counts.accepted}", counts.accepted))
        if counts.unlabelled:
            lines.append((f"of these without a label, so not evaluated: {counts.unlabelled}", counts.unlabelled))
        if counts.without_patient:
            lines.append(
                (f"of these without a patient id, so not used: {counts.without_patient}", counts.without_patient)
            )
        rows.append({"cohort": cohort, "bars": bars(lines, arrived), "notes": flow_notes(counts)})
    return rows


def _model_facts(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [(key, str(value)) for key, value in model.items() if not isinstance(value, dict)]
    for key, value in model.items():
        if isinstance(value, dict):
            facts += [(f"{key}.{name}", str(inner)) for name, inner in value.items()]
    return facts


def _group_names(report: Report) -> dict[str, list[str]]:
    names: dict[str, dict[str, None]] = {}
    for _, split in report.data.splits:
        for attribute, counts in split.groups.items():
            names.setdefault(attribute, {}).update(dict.fromkeys(counts))
    return {attribute: sorted(values, key=group_order) for attribute, values in names.items()}


def _forest_values(report: Report) -> list[float]:
    found = [report.performance.test["roc_auc"], *(row.metrics["roc_auc"] for row in report.subgroups)]
    return [value for e in found for value in (e.value, e.low) if value is not None]
