"""How new images are classified (`predictions`). The defaults stand in ``inference_config.yaml``."""

from pydantic import Field

from penumo_assets.configs.base import StrictModel, defaults_from
from penumo_assets.configs.train import Architecture


@defaults_from("inference_config.yaml")
class InferenceConfig(StrictModel):
    """Settings of an inference job."""

    model_version: str = Field(
        pattern=rf"^(champion|previous|[0-9]+|{'|'.join(Architecture)})$",
        description="The registry's alias champion or previous, a version number, or an architecture's newest model.",
    )
    batch_size: int = Field(ge=1, le=65_536, description="Images per forward pass.")
    overlay: bool = Field(description="Write a Grad-CAM overlay (PNG) per image.")
    overlay_limit: int = Field(ge=0, description="Most overlays to write: the most certain positives first.")
    compute_device: str = Field(
        pattern=r"^(auto|cpu|cuda)$", description="auto: a GPU where there is one, else the CPU."
    )
    max_psi: float = Field(
        gt=0, description="Population stability index above which predictions or image statistics have drifted."
    )
