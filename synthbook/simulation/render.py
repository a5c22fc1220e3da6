"""From theta to an image with depth and mask, with PyBullet's software renderer, and camera effects on the image.

PyBullet keeps the light and the textures of the previous image, so every scene is built from scratch and every
argument of the light is passed on every call. The whole scene is one body with a link for each object, which builds
five times faster than a body for each.
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
from synthbook.simulation import import_pybullet
from synthbook.simulation.scene import SHAPES, Body, Camera, CameraEffects, SceneParams, projection_matrix, view_matrix
from synthbook.simulation.textures import atlas, encode_tga, texture

pybullet = import_pybullet()
_ImageArray = NDArray[np.uint8]  # (H, W, 3), or gray levels (H, W)

# ── Camera effects ──


_MAX_GAIN = 6.0  # of the automatic exposure


def apply_camera_effects(image: _ImageArray, effects: CameraEffects, rng: np.random.Generator) -> _ImageArray:
    """Apply blur, automatic exposure, vignetting and sensor noise to an image (H, W, 3) or (H, W)."""
    blurred = image
    if effects.blur > 0:
        blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(effects.blur)))
    # I' = 255 gain (I / 255)^gamma, the gain such that the mean becomes the exposure
    curve = (np.arange(256, dtype=np.float32) / 255) ** np.float32(effects.gamma)
    frequencies = np.bincount(blurred.ravel(), minlength=256) / blurred.size
    gain = min(effects.exposure / max(float(frequencies @ curve), 1e-3), _MAX_GAIN)
    x = (255 * np.float32(gain) * curve)[blurred]
    if effects.vignetting > 0:
        falloff = 1 - np.float32(effects.vignetting) * _squared_radius(*x.shape[:2])
        x *= falloff if x.ndim == 2 else falloff[..., None]
    if effects.noise > 0:
        x += np.float32(effects.noise) * rng.standard_normal(x.shape, dtype=np.float32)
    return np.asarray(np.clip(x + 0.5, 0, 255), dtype=np.uint8)


@lru_cache(maxsize=8)
def _squared_radius(height: int, width: int) -> NDArray[np.float32]:
    """Squared distance (H, W) from the center, 1 in the corners."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return ((x**2 + y**2) / 2).astype(np.float32)


@dataclass(frozen=True, eq=False)
class DistortionMap:
    """For each pixel of a camera with radial distortion its row and column (H, W) in the image without."""

    y: NDArray[np.float32]
    x: NDArray[np.float32]

    @classmethod
    def from_camera(cls, camera: Camera) -> DistortionMap:
        """Invert r_distorted = r (1 + k1 r^2) for each pixel, to fourth order in k1 r_distorted^2."""
        b = ((np.arange(camera.height) - camera.cy) / camera.fy).astype(np.float32)[:, None]
        a = ((np.arange(camera.width) - camera.cx) / camera.fx).astype(np.float32)
        q = np.float32(camera.k1) * (a**2 + b**2)
        # r / r_distorted = 1 - q + 3 q^2 - 12 q^3 + 55 q^4 - ...
        scale = 1 - q * (1 - q * (3 - q * (12 - 55 * q)))
        y = b * scale * np.float32(camera.fy) + np.float32(camera.cy)
        x = a * scale * np.float32(camera.fx) + np.float32(camera.cx)
        return cls(np.clip(y, 0, camera.height - 1), np.clip(x, 0, camera.width - 1))

    def remap_nearest(self, *arrays: NDArray[Any]) -> list[NDArray[Any]]:
        """Remap masks and depths (H, W), each pixel from the nearest one."""
        width = arrays[0].shape[1]
        index = np.rint(self.y).astype(np.int32) * width + np.rint(self.x).astype(np.int32)
        return [array.ravel()[index] for array in arrays]

    def remap_bilinear(self, image: _ImageArray) -> _ImageArray:
        """Remap an image (H, W) or (H, W, 3), each pixel interpolated between four neighbors."""
        height, width = image.shape[:2]
        top, left = np.minimum(self.y.astype(np.int32), height - 2), np.minimum(self.x.astype(np.int32), width - 2)
        fy, fx, index = self.y - top, self.x - left, top * width + left
        if image.ndim == 3:
            fy, fx = fy[..., None], fx[..., None]
        flat = image.reshape(height * width, *image.shape[2:]).astype(np.float32)
        a, b, c, d = (flat[index + step] for step in (0, 1, width, width + 1))
        above, below = a + (b - a) * fx, c + (d - c) * fx
        return np.asarray(above + (below - above) * fy + np.float32(0.5), dtype=np.uint8)


# ── The renderer ──


BACKGROUND_ID = 255  # in a mask: no body
TEXTURES = "synthbook-textures-"  # prefix of folders; the process id follows


class RenderError(SynthbookError):
    """Raised when PyBullet cannot start or its result is inconsistent with the scene."""


@dataclass(frozen=True, eq=False)
class Sample:
    """An image with depth, mask and theta.

    `jpeg_bytes`: the image as a JPEG file; `depth` (H, W) float32 along the optical axis in m, infinite in the
    background; `mask` (H, W) uint8: the index of the body in `params.bodies`, or `BACKGROUND_ID`.
    """

    jpeg_bytes: bytes
    depth: NDArray[np.float32]
    mask: NDArray[np.uint8]
    params: SceneParams

    @cached_property
    def image(self) -> _ImageArray:
        """The image (H, W, 3), or gray levels (H, W)."""
        with Image.open(io.BytesIO(self.jpeg_bytes)) as image:
            return np.asarray(image)

    def __repr__(self) -> str:
        height, width = self.mask.shape
        return f"Sample({width} x {height} px, JPEG of {len(self.jpeg_bytes):,} bytes, {self.params})"


class Renderer:
    """A PyBullet client without a window: close it, or use it in a `with` statement. It cannot be pickled."""

    def __init__(self) -> None:
        self._client = pybullet.connect(pybullet.DIRECT)
        if self._client < 0:
            raise RenderError("PyBullet does not start a client: `synthbook doctor` says what works here")
        # in memory where possible: a texture file is written and read back for each scene
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        _remove_stale_folders(Path(memory or tempfile.gettempdir()))
        self._folder = tempfile.TemporaryDirectory(prefix=f"{TEXTURES}{os.getpid()}-", dir=memory)

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release all resources; calling it twice is safe."""
        if self._client >= 0:
            pybullet.disconnect(physicsClientId=self._client)
            self._client = -1
            self._folder.cleanup()

    def render(self, params: SceneParams, rng: np.random.Generator) -> Sample:
        """Render a scene; `rng` draws the sensor noise. Raises `InvalidArgument` and `RenderError`."""
        image, depth, mask = self.render_buffers(params)
        background = mask == BACKGROUND_ID
        if background.any():
            height, width = mask.shape
            behind = Image.fromarray(texture(params.background)).resize((width, height), Image.Resampling.BILINEAR)
            behind = behind.convert("L") if params.effects.grayscale else behind
            image = np.where(background if image.ndim == 2 else background[..., None], np.asarray(behind), image)
        photo, buffer = Image.fromarray(apply_camera_effects(image, params.effects, rng)), io.BytesIO()
        photo.save(buffer, format="JPEG", quality=params.effects.jpeg_quality)
        return Sample(buffer.getvalue(), depth, mask, params)

    def render_buffers(self, params: SceneParams) -> tuple[_ImageArray, NDArray[np.float32], NDArray[np.uint8]]:
        """Image (H, W, 3) or (H, W), depth and mask (H, W), with lens distortion but before camera effects."""
        if self._client < 0:
            raise InvalidArgument("renderer", "a closed one", "an open one: create a new Renderer")
        self._build(params.bodies)
        camera = params.camera
        image, buffer, labels = self.raw_buffers(params)
        # d = far near / (far - (far - near) z)
        metric = camera.far * camera.near / (camera.far - (camera.far - camera.near) * buffer)
        background = labels < 0
        mask = np.where(background, BACKGROUND_ID, (labels >> 24) - 1).astype(np.uint8)  # id + ((link + 1) << 24)
        depth = np.where(background, np.inf, metric).astype(np.float32)
        if (mask[~background] >= len(params.bodies)).any():
            raise RenderError("the renderer's mask names a body that is not in the scene")
        if params.effects.grayscale:
            image = np.asarray(Image.fromarray(image).convert("L"))
        if camera.k1 == 0:
            return image, depth, mask
        distortion = DistortionMap.from_camera(camera)
        depth, mask = distortion.remap_nearest(depth, mask)
        return distortion.remap_bilinear(image), depth, mask

    def _build(self, bodies: tuple[Body, ...]) -> None:
        at = {"physicsClientId": self._client}
        pybullet.resetSimulation(**at)
        pybullet.setPhysicsEngineParameter(enableFileCaching=0, **at)  # texture files are written anew for each scene
        n = len(bodies)
        multi_body = pybullet.createMultiBody(
            linkMasses=[0] * n,
            linkCollisionShapeIndices=[-1] * n,
            linkVisualShapeIndices=[self._visual_shape(body) for body in bodies],
            linkPositions=[body.position for body in bodies],
            linkOrientations=[body.quaternion for body in bodies],
            linkInertialFramePositions=[[0, 0, 0]] * n,
            linkInertialFrameOrientations=[[0, 0, 0, 1]] * n,
            linkParentIndices=[0] * n,
            linkJointTypes=[pybullet.JOINT_FIXED] * n,
            linkJointAxis=[[0, 0, 1]] * n,
            **at,
        )
        for link, body in enumerate(bodies):
            texture_id = pybullet.loadTexture(self._texture_file(body.textures), **at)
            pybullet.changeVisualShape(multi_body, link, textureUniqueId=texture_id, rgbaColor=[*body.color, 1], **at)

    def _texture_file(self, textures: tuple[str, ...]) -> str:
        """Path of a file with the texture; files of single textures are reused, since they are few and recur."""
        path = Path(self._folder.name) / (f"{textures[0]}.tga".replace("/", "-") if len(textures) == 1 else "six.tga")
        if len(textures) > 1 or not path.exists():
            path.write_bytes(encode_tga(atlas(textures)))
        return str(path)

    def _visual_shape(self, body: Body) -> int:
        if body.shape not in SHAPES:
            raise InvalidArgument("shape", body.shape, f"one of {', '.join(SHAPES)}")
        mesh = SHAPES["cube of six" if body.shape == "cube" and len(body.textures) == 6 else body.shape]
        at = {"physicsClientId": self._client}
        return int(pybullet.createVisualShape(pybullet.GEOM_MESH, meshScale=body.size, **mesh.pybullet_kwargs, **at))

    def raw_buffers(self, params: SceneParams) -> tuple[_ImageArray, NDArray[np.float64], NDArray[np.int64]]:
        """Colors (H, W, 3), depth buffer and packed labels (H, W) of the scene that was built last."""
        camera, light = params.camera, params.light
        _, _, rgba, depth, labels = pybullet.getCameraImage(
            camera.width,
            camera.height,
            view_matrix(camera),
            projection_matrix(camera),
            lightDirection=light.direction,
            lightColor=light.color,
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
        colors = np.ascontiguousarray(np.asarray(rgba, dtype=np.uint8).reshape(*size, 4)[..., :3])
        return colors, np.asarray(depth, dtype=float).reshape(size), np.asarray(labels).reshape(size)


def _remove_stale_folders(root: Path) -> None:
    """Remove texture folders of processes that were killed: they take memory."""
    for folder in root.glob(f"{TEXTURES}*-*"):
        owner = folder.name.removeprefix(TEXTURES).split("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)  # another user's stays
