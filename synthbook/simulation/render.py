"""From theta to a picture with exact labels: one PyBullet client without a window, its software renderer, all on a CPU.

Every scene starts from nothing, and every argument of the light is given on every call: both are remembered from one
picture to the next otherwise. The whole scene is one body with a link for each thing, which builds five times faster
than a body for each.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from synthbook.core.errors import InvalidArgument, SynthbookError
from synthbook.simulation.bullet import pybullet
from synthbook.simulation.scene import (
    SHAPES,
    Body,
    Camera,
    CameraEffects,
    Mesh,
    SceneParams,
    projection_matrix,
    view_matrix,
)
from synthbook.simulation.textures import atlas, texture, tga

Picture = NDArray[np.uint8]  # (H, W, 3) or, in grey, (H, W)
MAX_GAIN = 6.0  # a camera does not turn night into day


def apply_camera_effects(picture: Picture, finish: CameraEffects, rng: np.random.Generator) -> Picture:
    """The picture (H, W, 3) or (H, W) after blur, automatic exposure, vignetting and noise."""
    image = Image.fromarray(picture)
    if finish.blur > 0:
        image = image.filter(ImageFilter.GaussianBlur(finish.blur))
    blurred = np.asarray(image)
    # I' = 255 gain (I / 255)^gamma, the gain such that the mean becomes the exposure
    curve = (np.arange(256, dtype=np.float32) / 255) ** np.float32(finish.gamma)
    share = np.bincount(blurred.ravel(), minlength=256) / blurred.size
    gain = min(finish.exposure / max(float(share @ curve), 1e-3), MAX_GAIN)
    x = (255 * np.float32(gain) * curve)[blurred]
    if finish.vignetting > 0:
        dark = 1 - np.float32(finish.vignetting) * _radius2(*x.shape[:2])
        x *= dark if x.ndim == 2 else dark[..., None]
    if finish.noise > 0:
        x += np.float32(finish.noise) * rng.standard_normal(x.shape, dtype=np.float32)
    return np.asarray(np.clip(x + 0.5, 0, 255), dtype=np.uint8)


def jpeg(picture: Picture, quality: int) -> bytes:
    """The picture as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


@lru_cache(maxsize=8)
def _radius2(high: int, wide: int) -> NDArray[np.float32]:
    """Squared distance from the middle, 1 in the corners."""
    y, x = np.meshgrid(np.linspace(-1, 1, high), np.linspace(-1, 1, wide), indexing="ij")
    return ((x**2 + y**2) / 2).astype(np.float32)


@dataclass(frozen=True, eq=False)
class DistortionMap:
    """Where each pixel of a lens with distortion looks in a picture rendered without: rows and columns (H, W)."""

    y: NDArray[np.float32]
    x: NDArray[np.float32]

    @classmethod
    def from_camera(cls, camera: Camera) -> DistortionMap:
        """Solve r (1 + k1 r^2) = r_seen for the r of each pixel, to fourth order in k1 r_seen^2."""
        b = ((np.arange(camera.height) - camera.cy) / camera.fy).astype(np.float32)[:, None]
        a = ((np.arange(camera.width) - camera.cx) / camera.fx).astype(np.float32)
        q = np.float32(camera.k1) * (a**2 + b**2)
        # r / r_seen = 1 - q + 3 q^2 - 12 q^3 + 55 q^4 - ...
        scale = 1 - q * (1 - q * (3 - q * (12 - 55 * q)))
        y = b * scale * np.float32(camera.fy) + np.float32(camera.cy)
        x = a * scale * np.float32(camera.fx) + np.float32(camera.cx)
        return cls(np.clip(y, 0, camera.height - 1), np.clip(x, 0, camera.width - 1))

    def remap_nearest(self, *parts: NDArray[Any]) -> list[NDArray[Any]]:
        """Masks and depths (H, W), never mixed."""
        wide = parts[0].shape[1]
        place = np.rint(self.y).astype(np.int32) * wide + np.rint(self.x).astype(np.int32)
        return [part.ravel()[place] for part in parts]

    def remap_bilinear(self, picture: Picture) -> Picture:
        """A picture (H, W) or (H, W, 3), each pixel mixed from its four neighbours."""
        high, wide = picture.shape[:2]
        top, left = np.minimum(self.y.astype(np.int32), high - 2), np.minimum(self.x.astype(np.int32), wide - 2)
        fy, fx, place = self.y - top, self.x - left, top * wide + left
        if picture.ndim == 3:
            fy, fx = fy[..., None], fx[..., None]
        flat = picture.reshape(high * wide, *picture.shape[2:]).astype(np.float32)
        a, b, c, d = (flat[place + step] for step in (0, 1, wide, wide + 1))
        above, below = a + (b - a) * fx, c + (d - c) * fx
        return np.asarray(above + (below - above) * fy + np.float32(0.5), dtype=np.uint8)


# ── The renderer ──


BACKGROUND_ID = 255  # in a mask: neither table nor thing
TEXTURES = "synthbook-textures-"  # folders, each with its process in the name


class RenderError(SynthbookError):
    """The renderer gave something that cannot be right."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture, what every pixel shows, and theta.

    `file`: the picture as JPEG; `depth` (H, W) float32 along the optical axis in metres, infinite where nothing is;
    `mask` (H, W) uint8: the number of the body in `params.bodies`, or `BACKGROUND_ID`.
    """

    file: bytes
    depth: NDArray[np.float32]
    mask: NDArray[np.uint8]
    params: SceneParams

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        """The picture (H, W, 3), or (H, W) in grey."""
        with Image.open(io.BytesIO(self.file)) as image:
            return np.asarray(image)


class Renderer:
    """A client of its own; close it, or use it in a `with` statement. It cannot be sent to another process."""

    def __init__(self) -> None:
        self._client = pybullet.connect(pybullet.DIRECT)
        if self._client < 0:
            raise RenderError("PyBullet does not start a client: `synthbook doctor` says what works here")
        # in memory where there is such a place: a file for each scene is written and read back
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        _sweep(Path(memory or tempfile.gettempdir()))
        self._folder = tempfile.TemporaryDirectory(prefix=f"{TEXTURES}{os.getpid()}-", dir=memory)

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give everything back; closing twice is nothing."""
        if self._client >= 0:
            pybullet.disconnect(physicsClientId=self._client)
            self._client = -1
            self._folder.cleanup()

    def render(self, params: SceneParams, rng: np.random.Generator) -> Sample:
        """The scene as a photograph; `rng` draws the sensor's noise. Raises `InvalidArgument`, `RenderError`."""
        picture, depth, mask = self.render_buffers(params)
        nowhere = mask == BACKGROUND_ID
        if nowhere.any():
            high, wide = mask.shape
            behind = Image.fromarray(texture(params.background)).resize((wide, high), Image.Resampling.BILINEAR)
            behind = behind.convert("L") if params.finish.grey else behind
            picture = np.where(nowhere if picture.ndim == 2 else nowhere[..., None], np.asarray(behind), picture)
        file = jpeg(apply_camera_effects(picture, params.finish, rng), params.finish.jpeg)
        return Sample(file, depth, mask, params)

    def render_buffers(self, params: SceneParams) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
        """Picture (H, W, 3), or (H, W) in grey, depth and mask (H, W) as the lens shows them, before the sensor."""
        if self._client < 0:
            raise InvalidArgument("renderer", "a closed one", "an open one: make a new Renderer")
        self._build(params.bodies)
        camera = params.camera
        picture, buffer, labels = self.raw_buffers(params)
        # d = far near / (far - (far - near) z)
        metric = camera.far * camera.near / (camera.far - (camera.far - camera.near) * buffer)
        nowhere = labels < 0
        mask = np.where(nowhere, BACKGROUND_ID, (labels >> 24) - 1).astype(np.uint8)  # id + ((link + 1) << 24)
        depth = np.where(nowhere, np.inf, metric).astype(np.float32)
        if (mask[~nowhere] >= len(params.bodies)).any():
            raise RenderError("the renderer's mask names a body that is not in the scene")
        if params.finish.grey:
            picture = np.asarray(Image.fromarray(picture).convert("L"))
        if camera.k1 == 0:
            return picture, depth, mask
        lens = DistortionMap.from_camera(camera)
        depth, mask = lens.remap_nearest(depth, mask)
        return lens.remap_bilinear(picture), depth, mask

    def _build(self, bodies: tuple[Body, ...]) -> None:
        at = {"physicsClientId": self._client}
        pybullet.resetSimulation(**at)
        pybullet.setPhysicsEngineParameter(enableFileCaching=0, **at)  # texture files are written anew for each scene
        n = len(bodies)
        body = pybullet.createMultiBody(
            linkMasses=[0] * n,
            linkCollisionShapeIndices=[-1] * n,
            linkVisualShapeIndices=[self._visual(body) for body in bodies],
            linkPositions=[body.position for body in bodies],
            linkOrientations=[body.quaternion for body in bodies],
            linkInertialFramePositions=[[0, 0, 0]] * n,
            linkInertialFrameOrientations=[[0, 0, 0, 1]] * n,
            linkParentIndices=[0] * n,
            linkJointTypes=[pybullet.JOINT_FIXED] * n,
            linkJointAxis=[[0, 0, 1]] * n,
            **at,
        )
        for link, thing in enumerate(bodies):
            number = pybullet.loadTexture(self._file(thing.textures), **at)
            pybullet.changeVisualShape(body, link, textureUniqueId=number, rgbaColor=[*thing.colour, 1], **at)

    def _file(self, textures: tuple[str, ...]) -> str:
        """A file with the texture; single ones are kept, because there are few and they come again."""
        path = Path(self._folder.name) / (f"{textures[0]}.tga".replace("/", "-") if len(textures) == 1 else "six.tga")
        if len(textures) > 1 or not path.exists():
            path.write_bytes(tga(atlas(textures)))
        return str(path)

    def _visual(self, body: Body) -> int:
        pybullet_kwargs = _shape(body).pybullet_kwargs
        return int(
            pybullet.createVisualShape(
                pybullet.GEOM_MESH,
                **pybullet_kwargs,
                meshScale=body.size,
                physicsClientId=self._client,
            )
        )

    def raw_buffers(self, params: SceneParams) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64]]:
        """The scene that was built last, as PyBullet gives it: colours, depth buffer, packed labels."""
        camera, light = params.camera, params.light
        _, _, picture, depth, labels = pybullet.getCameraImage(
            camera.width,
            camera.height,
            view_matrix(camera),
            projection_matrix(camera),
            lightDirection=light.direction,
            lightColor=light.colour,
            lightDistance=light.distance,
            shadow=int(light.shadow),
            lightAmbientCoeff=light.ambient,
            lightDiffuseCoeff=light.diffuse,
            lightSpecularCoeff=light.specular,
            renderer=pybullet.ER_TINY_RENDERER,
            flags=pybullet.ER_SEGMENTATION_MASK_OBJECT_AND_LINKINDEX,
            physicsClientId=self._client,
        )
        size = (camera.height, camera.width)
        colours = np.asarray(picture, dtype=np.uint8).reshape(*size, 4)[..., :3]
        return (
            np.ascontiguousarray(colours),
            np.asarray(depth, dtype=float).reshape(size),
            np.asarray(labels).reshape(size),
        )


def _sweep(place: Path) -> None:
    """Remove what renderers left that were killed: it lies in memory."""
    for folder in place.glob(f"{TEXTURES}*-*"):
        owner = folder.name.removeprefix(TEXTURES).split("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)  # another user's stays


def _shape(body: Body) -> Mesh:
    if body.shape not in SHAPES:
        raise InvalidArgument("shape", body.shape, f"one of {', '.join(SHAPES)}")
    return SHAPES["cube of six" if body.shape == "cube" and len(body.textures) == 6 else body.shape]
