"""Pictures of single images: the lung contour, and a Grad-CAM map laid over the pixels."""

import base64

import cv2
import numpy as np

CONTOUR_RGB = (64, 224, 208)
OVERLAY_WEIGHT = 0.45
JPEG_QUALITY = 88


def with_contour(image: np.ndarray, colour: tuple[int, int, int] = CONTOUR_RGB) -> np.ndarray:
    """The RGB part of (H, W, 4) uint8 with the outline of its mask channel (> 127): (H, W, 3) uint8."""
    drawn = np.ascontiguousarray(image[..., :3])
    mask = (image[..., 3] > 127).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, outlines, -1, colour, 1)
    return drawn


def with_heat(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blend a map (H', W') of 0..1 over (H, W, 3) uint8; cold regions keep the image as it is.

    Each cell of the map stays a cell: nothing is smoothed that the network did not see.
    Colours are OpenCV's inferno, whose lightness rises with the value.
    """
    height, width = image.shape[:2]
    heat = np.clip(cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST), 0, 1)
    colours = cv2.cvtColor(
        cv2.applyColorMap((heat * 255).round().astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB
    )
    weight = (OVERLAY_WEIGHT * np.sqrt(heat))[..., None]
    return (image[..., :3] * (1 - weight) + colours * weight).round().astype(np.uint8)


def jpeg_data_uri(image: np.ndarray) -> str:
    """(H, W, 3) uint8 RGB as ``data:image/jpeg;base64,...``.

    Raises
    ------
    ValueError
        If the pixels cannot be encoded.
    """
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ValueError(f"cannot encode an image of {image.shape} {image.dtype}")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
