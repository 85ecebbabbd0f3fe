"""The trained classifier as an MLflow model, from code and safetensors: MLflow reads this file, nothing is pickled.

``mlflow.pyfunc.load_model(uri).predict(images)`` takes (n, 224, 224, 4) uint8 and gives (n, classes)
probabilities. It needs penumo-assets installed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from penumo_assets.models.classifier import load_classifier
from penumo_assets.models.inputs import normalise

ARTIFACT = "classifier"


class MlflowClassifier(PythonModel):
    """``model.safetensors`` and ``metadata.json`` behind MLflow's predict."""

    def load_context(self, context: Any) -> None:
        self.model, self.metadata = load_classifier(Path(context.artifacts[ARTIFACT]))

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        with torch.inference_mode():
            logits = self.model(normalise(torch.from_numpy(np.asarray(model_input)), self.metadata))
        return logits.double().softmax(dim=1).numpy()


set_model(MlflowClassifier())
