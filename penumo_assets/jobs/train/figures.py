"""Figures of one training on its validation split, as matplotlib figures without a display."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve


def training_figures(
    history: list[dict[str, Any]],
    targets: np.ndarray,
    probabilities: np.ndarray,
    classes: list[str],
    threshold: float | None,
) -> dict[str, Figure]:
    """Learning curve, confusion matrix, and (per class, or the positive one of two) ROC and PR curves."""
    predicted = probabilities.argmax(axis=1)
    if threshold is not None:
        predicted = (probabilities[:, 1] >= threshold).astype(int)
    return {
        "learning_curve": _learning_curve(history),
        "confusion_matrix": _confusion_matrix(targets, predicted, classes),
        "roc_curve": _curves(targets, probabilities, classes, "roc"),
        "precision_recall_curve": _curves(targets, probabilities, classes, "pr"),
    }


def _learning_curve(history: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    epochs = [record["epoch"] for record in history]
    left.plot(epochs, [record["train_loss"] for record in history], color="tab:blue", label="train loss")
    left.plot(epochs, [record["validation_loss"] for record in history], color="tab:orange", label="validation loss")
    right.plot(epochs, [record["validation_roc_auc"] for record in history], color="tab:green", label="validation AUC")
    left.set(xlabel="epoch", ylabel="loss")
    right.set(ylabel="ROC-AUC", ylim=(0, 1.02))
    figure.legend(loc="outside upper center", ncols=3, fontsize="small")
    return figure


def _confusion_matrix(targets: np.ndarray, predicted: np.ndarray, classes: list[str]) -> Figure:
    counts = confusion_matrix(targets, predicted, labels=np.arange(len(classes)))
    figure = Figure(figsize=(4.5, 4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts, cmap="Blues")
    for row, column in np.ndindex(counts.shape):
        dark = counts[row, column] > counts.max() / 2
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color="white" if dark else "black")
    axes.set(xticks=range(len(classes)), yticks=range(len(classes)), xlabel="predicted", ylabel="label")
    axes.set_xticklabels(classes)
    axes.set_yticklabels(classes)
    axes.set_title("Validation, images", fontsize="medium")
    return figure


def _curves(targets: np.ndarray, probabilities: np.ndarray, classes: list[str], kind: str) -> Figure:
    figure = Figure(figsize=(4.5, 4), layout="constrained")
    axes = figure.subplots()
    for number in [1] if len(classes) == 2 else range(len(classes)):
        truth, scores = targets == number, probabilities[:, number]
        if kind == "roc":
            x, y, _ = roc_curve(truth, scores)
        else:
            y, x, _ = precision_recall_curve(truth, scores)
        axes.plot(x, y, label=classes[number])
    if kind == "roc":
        axes.plot([0, 1], [0, 1], color="gray", linestyle=":", linewidth=1)
        axes.set(xlabel="1 - specificity", ylabel="sensitivity")
    else:
        axes.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02))
    axes.legend(title="validation", fontsize="small")
    return figure
