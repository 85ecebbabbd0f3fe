"""The picture beside an answer: the film with its lungs outlined, and what the answer rests on."""

import cv2
import numpy as np

from penumo_assets.jobs.infer.predictor import Classifier
from penumo_assets.metrics.report.pictures import with_contour, with_heat


def overlay(classifier: Classifier, image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(224, 224, 4) uint8 -> (224, 448, 3) RGB: lung contour left; right what spoke for the positive class."""
    target = np.array([classifier.explained_class(probabilities)])
    return np.hstack([with_contour(image), with_heat(image, classifier.heat(image[None], target)[0])])


def png_bytes(picture: np.ndarray) -> bytes:
    """(H, W, 3) RGB uint8 as a PNG file."""
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()
