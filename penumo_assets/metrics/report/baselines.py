"""The shortcut baselines beside the model, over all cohorts and within each."""

from typing import Any

import numpy as np
import pandas as pd

from penumo_assets.metrics.delong import AucComparison, compare_aucs
from penumo_assets.metrics.estimates import Estimate
from penumo_assets.metrics.intervals import widen_degenerate_auc
from penumo_assets.metrics.performance import Scored, Settings, ranking_scores
from penumo_assets.metrics.ranking import Ranking
from penumo_assets.metrics.report.inputs import Evaluation
from penumo_assets.metrics.report.results import comparison_dict
from penumo_assets.metrics.shortcuts import Shortcut, shortcut_features, shortcut_scores, shortcuts

ALL_COHORTS = "all cohorts"


class ShortcutTable:
    """Fits each shortcut on training and validation images and judges it on test, beside the model.

    The features of all splits are computed once; the model's own AUC once per set of test images.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        self.test = evaluation.scored["test"]
        self.settings = evaluation.settings
        index = pd.concat([frame.assign(split=name) for name, frame in evaluation.index.items()], ignore_index=True)
        self.outcome = (index["target"] == evaluation.positive).to_numpy(np.int64)
        self.on_test = (index["split"] == "test").to_numpy()
        self.cohort = index["cohort"].to_numpy(str)
        dummies = pd.get_dummies(index["cohort"], prefix="cohort", dtype=np.float64)
        self.features = shortcut_features(index).join(dummies)
        self.which_cohort = Shortcut("cohort", "Which cohort", tuple(dummies.columns))
        self._model_aucs: dict[bytes, Estimate] = {}

    def rows(self) -> list[dict[str, Any]]:
        """One row per cohort and shortcut; over all cohorts also which cohort an image is from."""
        cohorts = sorted(set(self.cohort))
        everything = np.ones(len(self.cohort), dtype=bool)
        found = []
        if len(cohorts) > 1:
            tried = (*shortcuts(), self.which_cohort)
            found += [self._row(ALL_COHORTS, shortcut, everything) for shortcut in tried]
        for cohort in cohorts:
            found += [self._row(cohort, shortcut, self.cohort == cohort) for shortcut in shortcuts()]
        return found

    def _row(self, cohort: str, shortcut: Shortcut, inside: np.ndarray) -> dict[str, Any]:
        row = {"cohort": cohort, "shortcut": shortcut.name, "title": shortcut.title}
        features = self.features[list(shortcut.columns)]
        try:
            scores = shortcut_scores(features, self.outcome, inside & ~self.on_test, inside & self.on_test)
        except ValueError as error:
            why = Estimate.undefined(str(error)).as_dict()
            return {**row, "images": 0, "shortcut_auc": why, "model_auc": why, "comparison": None, "verdict": None}
        known = np.isfinite(scores)
        judged = np.flatnonzero(inside[self.on_test])[known]
        test = self.test.subset(judged)
        comparison = compare_aucs(
            test.present, ranking_scores(test), scores[known], test.patients, self.settings.confidence
        )
        return {
            **row,
            "images": len(judged),
            "shortcut_auc": _auc(test, scores[known], self.settings).as_dict(),
            "model_auc": self._model_auc(judged, test).as_dict(),
            "comparison": comparison_dict(comparison),
            "verdict": verdict(comparison),
        }

    def _model_auc(self, judged: np.ndarray, test: Scored) -> Estimate:
        key = judged.tobytes()
        if key not in self._model_aucs:
            self._model_aucs[key] = _auc(test, ranking_scores(test), self.settings)
        return self._model_aucs[key]


def shortcut_section(evaluation: Evaluation) -> dict[str, Any]:
    """``rows`` of the table, or the reason why there are none."""
    if evaluation.positive is None:
        return {"rows": [], "reason": "shortcut baselines are defined for two classes with a positive one"}
    return {"rows": ShortcutTable(evaluation).rows(), "reason": None}


def verdict(comparison: AucComparison | None) -> str | None:
    """In words, whether the interval of model minus shortcut excludes 0."""
    if comparison is None:
        return None
    if comparison.low > 0:
        return "model better"
    return "shortcut better" if comparison.high < 0 else "not distinguishable"


def _auc(test: Scored, scores: np.ndarray, settings: Settings) -> Estimate:
    if not len(scores):
        return Estimate.undefined("no test image with this feature")
    bootstrap = settings.bootstrap(test.patients)
    ranking = Ranking.of(test.present, scores)
    value = ranking.areas(np.ones(len(scores), np.int64))[0]
    found = bootstrap.estimate(value, bootstrap.areas(ranking)[0], "the test images hold one class only")
    with_finding, without = (len(np.unique(test.patients[test.present == side])) for side in (1, 0))
    return widen_degenerate_auc(found, with_finding, without, settings.confidence)
