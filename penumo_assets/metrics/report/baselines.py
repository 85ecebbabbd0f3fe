"""The shortcut baselines beside the model, over all cohorts and within each."""

import numpy as np
import pandas as pd

from penumo_assets.metrics.auc import Part, mean_auc
from penumo_assets.metrics.delong import compare_aucs
from penumo_assets.metrics.performance import Scored, ranking_scores
from penumo_assets.metrics.records import AucComparison, Estimate, Settings
from penumo_assets.metrics.report.inputs import Evaluation
from penumo_assets.metrics.report.measured import ShortcutRow, Shortcuts, Verdict
from penumo_assets.metrics.shortcuts import SHORTCUTS, Shortcut, shortcut_features, shortcut_scores

ALL_COHORTS = "all cohorts"


class ShortcutTable:
    """Fits each shortcut on training and validation images and judges it on test, beside the model.

    ``target`` is the class that both look for. The features of all splits are computed once; the model's own AUC once
    per set of test images.
    """

    def __init__(self, evaluation: Evaluation, target: int) -> None:
        self.test = evaluation.scored["test"].of_class(target)
        self.finding = evaluation.classes[target]
        self.settings = evaluation.settings
        index = pd.concat([frame.assign(split=name) for name, frame in evaluation.index.items()], ignore_index=True)
        self.outcome = (index["target"] == target).to_numpy(np.int64)
        self.on_test = (index["split"] == "test").to_numpy()
        self.cohort = index["cohort"].to_numpy(str)
        dummies = pd.get_dummies(index["cohort"], prefix="cohort", dtype=np.float64)
        self.features = shortcut_features(index).join(dummies)
        self.which_cohort = Shortcut("cohort", "Which cohort", tuple(dummies.columns))
        self._model_aucs: dict[bytes, Estimate] = {}

    def rows(self) -> tuple[ShortcutRow, ...]:
        """One row per shortcut and cohort that both sides have; over all cohorts also which cohort an image is from."""
        cohorts = sorted(set(self.cohort[self.on_test]) & set(self.cohort[~self.on_test]))
        everything = np.ones(len(self.cohort), dtype=bool)
        found: list[ShortcutRow] = []
        if len(set(self.cohort)) > 1:
            tried = (*SHORTCUTS, self.which_cohort)
            found += [self._row(ALL_COHORTS, shortcut, everything) for shortcut in tried]
        for cohort in cohorts:
            found += [self._row(cohort, shortcut, self.cohort == cohort) for shortcut in SHORTCUTS]
        return tuple(found)

    def _row(self, cohort: str, shortcut: Shortcut, inside: np.ndarray) -> ShortcutRow:
        features = self.features[list(shortcut.columns)]
        try:
            scores = shortcut_scores(features, self.outcome, inside & ~self.on_test, inside & self.on_test)
        except ValueError as error:
            why = Estimate.undefined(str(error))
            return self._judged(cohort, shortcut, 0, why, why, None)
        known = np.isfinite(scores)
        judged = np.flatnonzero(inside[self.on_test])[known]
        test = self.test.subset(judged)
        comparison = compare_aucs(
            test.present, ranking_scores(test), scores[known], test.patients, self.settings.confidence
        )
        found = _auc(test, scores[known], self.settings)
        return self._judged(cohort, shortcut, len(judged), found, self._model_auc(judged, test), comparison)

    def _model_auc(self, judged: np.ndarray, test: Scored) -> Estimate:
        key = judged.tobytes()
        if key not in self._model_aucs:
            self._model_aucs[key] = _auc(test, ranking_scores(test), self.settings)
        return self._model_aucs[key]

    def _judged(
        self,
        cohort: str,
        shortcut: Shortcut,
        images: int,
        found: Estimate,
        model: Estimate,
        comparison: AucComparison | None,
    ) -> ShortcutRow:
        return ShortcutRow(
            finding=self.finding,
            cohort=cohort,
            shortcut=shortcut.name,
            title=shortcut.title,
            images=images,
            shortcut_auc=found,
            model_auc=model,
            comparison=comparison,
            verdict=verdict(comparison),
        )


def shortcut_section(evaluation: Evaluation) -> Shortcuts:
    """``rows`` of the table: for the positive class of two, or of several for each against the rest."""
    targets = range(len(evaluation.classes)) if evaluation.positive is None else [evaluation.positive]
    return Shortcuts(rows=tuple(row for target in targets for row in ShortcutTable(evaluation, target).rows()))


def verdict(comparison: AucComparison | None) -> Verdict | None:
    """In words, whether the interval of model minus shortcut excludes 0."""
    if comparison is None:
        return None
    if comparison.low > 0:
        return "model better"
    return "shortcut better" if comparison.high < 0 else "not distinguishable"


def _auc(test: Scored, scores: np.ndarray, settings: Settings) -> Estimate:
    if not len(scores):
        return Estimate.undefined("no test image with this feature")
    if len(np.unique(test.present)) < 2:
        return Estimate.undefined("the test images hold one class only")
    return mean_auc([Part(test.present == 1, scores, test.patients)], settings.confidence)
