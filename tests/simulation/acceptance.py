"""C2.1-1 as a function of the code: spheres against geometry."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np

from synthbook.simulation.scene import Body, Camera, CameraEffects, Light, SceneParams, look_at

PLAIN = CameraEffects(blur=0, exposure=0.5, gamma=1, vignetting=0, noise=0, jpeg_quality=95, grayscale=False)
LAMP = Light((0.3, -0.4, 1), (1, 1, 1), 2, 0.5, 0.5, 0.1, True)
TABLE = Body("table", "plane", (2, 2, 1), (0, 0, 0), (0, 0, 0, 1), ("noise-1",), (1, 1, 1))
CUBE = Body("cube", "cube", (0.1,) * 3, (0, 0, 0.05), (0, 0, 0, 1), ("checker-3",), (1, 1, 1))


def camera(rng: np.random.Generator, size: int = 96) -> Camera:
    """Looks from above at a point near the origin, off-center principal point, unequal focal lengths, rolled."""
    azimuth, elevation, distance = rng.uniform(0, 6.28), rng.uniform(0.3, 1.3), rng.uniform(0.4, 1.2)
    flat = np.cos(elevation)
    eye = tuple(
        float(v) for v in distance * np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
    )
    target = tuple(float(v) for v in rng.uniform(-0.05, 0.05, 3))
    cx, cy = rng.uniform(0.4, 0.6, 2) * size
    fx, fy = rng.uniform(0.8, 1.2, 2) * size
    return Camera(size, size, fx, fy, cx, cy, eye, look_at(eye, target, float(rng.uniform(-0.5, 0.5))))  # type: ignore[arg-type]


def with_cube(**changes: object) -> SceneParams:
    """A cube on the table, fully in the image."""
    lens = replace(camera(np.random.default_rng(1)), eye=(0.4, 0.3, 0.3), rotation=look_at((0.4, 0.3, 0.3), (0, 0, 0)))
    return SceneParams(lens, LAMP, (TABLE, replace(CUBE, **changes)), "flat-1", PLAIN, "typical")  # type: ignore[arg-type]


def sphere(rng: np.random.Generator) -> SceneParams:
    """One sphere that lies whole inside the picture, and nothing before it."""
    while True:
        cam, radius = camera(rng), rng.uniform(0.02, 0.05)
        center = (*rng.uniform(-0.08, 0.08, 2), rng.uniform(radius, 0.15))
        body = Body("ball", "sphere", (2 * radius,) * 3, center, (0, 0, 0, 1), ("stripes-2",), (1, 1, 1))
        (u, v), d = cam.project(np.array([center]))[0], cam.to_camera(np.array([center]))[0, 2]
        reach = 1.3 * radius / d * max(cam.fx, cam.fy) + 2
        if min(u, v, cam.width - u, cam.height - v) > reach:
            return SceneParams(cam, LAMP, (TABLE, body), "flat-1", PLAIN, "typical")


def sphere_errors(
    code: SimpleNamespace | ModuleType, scenes: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Distance of centroids in pixels (N,), relative error of depth (N,), whether every pixel names a body."""
    rng = np.random.default_rng(seed)
    pixels, depths, valid = [], [], True
    with code.Renderer() as renderer:
        for _ in range(scenes):
            params = sphere(rng)
            _, depth, mask = renderer.render_buffers(params)
            cam, ball = params.camera, params.bodies[1]
            center, radius = cam.to_camera(np.array([ball.position]))[0], ball.size[0] / 2
            rows, columns = np.nonzero(mask == 1)
            # the outline of a sphere is the intersection of its tangent cone with the image plane, an ellipse whose
            # center is farther out than the projected center of the sphere by the factor 1 / (1 - (R / Z)^2), exactly
            stretch = 1 / (1 - (radius / center[2]) ** 2)
            expected = [
                cam.fx * center[0] / center[2] * stretch + cam.cx,
                cam.fy * center[1] / center[2] * stretch + cam.cy,
            ]
            pixels.append(np.hypot(columns.mean() - expected[0], rows.mean() - expected[1]))
            u, v = np.rint(cam.project(np.array([ball.position]))[0]).astype(int)
            far, cosine = float(np.linalg.norm(center)), center[2] / np.linalg.norm(center)
            # along the axis, not along the ray: (D - R) cos(theta)
            depths.append(depth[v, u] / ((far - radius) * cosine) - 1)
            valid &= bool(np.isin(mask, (0, 1, 255)).all())
    return np.array(pixels), np.array(depths), valid


def holds(code: SimpleNamespace | ModuleType, scenes: int = 60) -> bool:
    """C2.1-1's tolerances: 1.5 px in 99 % of the scenes, 1 % in depth, valid labels."""
    pixels, depths, valid = sphere_errors(code, scenes)
    return bool((pixels < 1.5).mean() >= 0.99 and np.abs(depths).max() < 0.01 and valid)
