"""The lung U-Net: shapes, and what its built-in standardisation makes it immune to."""

import numpy as np
import pytest
import torch

from penumo_assets.models.lung_unet import STANDARD_LIMIT, LungUNet, LungUNetConfig, is_negative, standardise


@pytest.fixture
def film() -> torch.Tensor:
    """(1, 1, 64, 64): smooth content in columns 8..56, black bars beside it."""
    rows, columns = np.mgrid[0:64, 0:64] / 64
    gray = 128 + 60 * np.sin(7 * rows) * np.cos(5 * columns)
    gray[:, :8] = gray[:, 56:] = 0
    return torch.tensor(gray, dtype=torch.float32)[None, None]


@pytest.mark.parametrize("size", [(512, 512), (256, 256), (64, 96)])
def test_logits_have_the_size_of_the_input(size: tuple[int, int]) -> None:
    with torch.inference_mode():
        assert LungUNet().eval()(torch.rand(2, 1, *size) * 255).shape == (2, 1, *size)


def test_half_precision_weights_stay_below_8_megabytes() -> None:
    assert 2 * sum(tensor.numel() for tensor in LungUNet().state_dict().values()) <= 8e6


def test_every_parameter_gets_a_gradient_once_the_blocks_have_opened() -> None:
    model = LungUNet()
    for name, parameter in model.named_parameters():
        if name.endswith("second.1.weight"):
            torch.nn.init.ones_(parameter)  # they start at 0, which closes the blocks
    model(torch.rand(2, 1, 64, 64) * 255).square().mean().backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_standardisation_gives_the_content_zero_mean_and_unit_variance(film: torch.Tensor) -> None:
    content = standardise(film)[0, 0, :, 8:56]
    assert abs(float(content.mean())) < 1e-3
    assert abs(float(content.std(correction=0)) - 1) < 1e-3


def test_bars_become_zero_whatever_their_level(film: torch.Tensor) -> None:
    white = film.clone()
    white[..., :8] = white[..., 56:] = 255
    assert torch.equal(standardise(white), standardise(film))
    assert not standardise(film)[..., :8].any()


@pytest.mark.parametrize(("gain", "offset"), [(0.5, 0), (0.5, 64), (0.25, 150)])
def test_a_change_of_contrast_and_brightness_changes_nothing(film: torch.Tensor, gain: float, offset: float) -> None:
    torch.testing.assert_close(standardise(gain * film + offset), standardise(film), atol=1e-4, rtol=0)


def test_inversion_only_changes_the_sign(film: torch.Tensor) -> None:
    torch.testing.assert_close(standardise(255 - film), -standardise(film), atol=1e-4, rtol=0)


def two_lungs() -> tuple[torch.Tensor, torch.Tensor]:
    """A standardised film (1, 1, 64, 64) with dark lungs, and logits (1, 1, 32, 32) that find them."""
    film, logits = torch.ones(1, 1, 64, 64), torch.full((1, 1, 32, 32), -5.0)
    for left in (10, 38):
        film[..., 16:48, left : left + 16] = -1
        logits[..., 8:24, left // 2 : left // 2 + 8] = 5
    return film, logits


def test_a_film_whose_lungs_are_darker_than_what_lies_between_is_not_negative() -> None:
    film, logits = two_lungs()
    assert is_negative(torch.cat([film, -film]), torch.cat([logits, logits])).tolist() == [False, True]


def test_without_lungs_or_without_a_gap_between_them_no_film_is_negative() -> None:
    film, _ = two_lungs()
    nothing, everything = torch.full((1, 1, 32, 32), -5.0), torch.full((1, 1, 32, 32), 5.0)
    assert is_negative(torch.cat([-film, -film]), torch.cat([nothing, everything])).tolist() == [False, False]


@pytest.mark.parametrize("level", [0.0, 127.0, 255.0])
def test_a_constant_image_becomes_zero_not_nan(level: float) -> None:
    assert not standardise(torch.full((1, 1, 32, 32), level)).any()


def test_a_lone_bright_marker_cannot_dwarf_the_rest() -> None:
    image = torch.rand(1, 1, 128, 128) * 20
    image[..., 5:7, 5:7] = 255
    assert float(standardise(image).max()) == STANDARD_LIMIT


def test_unfitting_block_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="need 2 block counts"):
        LungUNetConfig(widths=(8, 16, 32), blocks=(1,))


def test_a_working_size_off_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        LungUNetConfig(working_size=250)
