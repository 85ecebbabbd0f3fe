"""What is measured after every epoch is what scikit-learn measures."""

import numpy as np
import pytest
from sklearn import metrics as sk

from penumo_assets.jobs.scores import validation_scores


@pytest.mark.parametrize("certain", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_scores_are_those_of_scikit_learn(classes: int, certain: bool) -> None:
    random = np.random.default_rng(classes)
    targets = np.resize(np.arange(classes), 60)
    probabilities = random.dirichlet(np.ones(classes), 60)
    if certain:  # and wrong: the loss has a bound
        probabilities[0] = np.eye(classes)[(targets[0] + 1) % classes]
    found = validation_scores(targets, probabilities)
    if classes == 2:
        decision = (probabilities[:, 1] >= found["threshold"]).astype(int)
        auc, f1 = sk.roc_auc_score(targets, probabilities[:, 1]), sk.f1_score(targets, decision)
    else:
        assert found["threshold"] is None
        decision = probabilities.argmax(axis=1)
        auc, f1 = (
            sk.roc_auc_score(targets, probabilities, multi_class="ovr"),
            sk.f1_score(targets, decision, average="macro"),
        )
    assert found["loss"] == pytest.approx(sk.log_loss(targets, probabilities))
    assert found["roc_auc"] == pytest.approx(auc)
    assert found["f1"] == pytest.approx(f1)
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(targets, decision))
