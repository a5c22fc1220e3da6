"""The renderer against geometry, and each of PyBullet's traps."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from synthbook.core.errors import InvalidArgument
from synthbook.simulation import render, scene
from synthbook.simulation.export import RenderShard
from synthbook.simulation.randomize import DOMAINS, sample_params
from synthbook.simulation.render import BACKGROUND_ID, Renderer, Sample
from synthbook.simulation.scene import SceneParams, look_at
from tests.mutation import mutant
from tests.simulation.acceptance import LAMP, holds, sphere, sphere_errors, with_cube


def shown(params: SceneParams) -> Sample:
    with Renderer() as renderer:
        return renderer.render(params, np.random.default_rng(0))


@pytest.mark.slow
def test_spheres_agree_with_geometry() -> None:
    pixels, depths, valid = sphere_errors(render, 60)
    assert np.median(pixels) < 0.2 and pixels.max() < 0.5 and np.abs(depths).max() < 0.005 and valid
    assert holds(render)


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (scene, "matrix[0, 2] = 2 * camera.fx / w, 1 -", "matrix[0, 2] = 2 * camera.fx / w, 1.1 -"),  # another cx
        (scene, "view.T.ravel()", "view.ravel()"),  # rows for columns
        (scene, "view[1:3] *= -1", "view[2:3] *= -1"),  # upside down
        (render, "camera.far - (camera.far - camera.near) * buffer", "camera.far - camera.far * buffer"),
        (render, "(labels >> 24) - 1", "labels >> 24"),
    ],
)
def test_mutants_miss_the_spheres(module: object, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = mutant(module, old, new)  # type: ignore[arg-type]
    code = changed
    if module is scene:
        for name in ("view_matrix", "projection_matrix"):
            monkeypatch.setattr(render, name, getattr(changed, name))
        code = render
    try:
        assert not holds(code, scenes=5)
    except Exception as error:  # a picture without the sphere at all
        assert type(error).__name__ in ("RenderError", "ValueError", "IndexError"), error


def test_images_do_not_depend_on_the_previous_one() -> None:
    """Trap: PyBullet remembers the light, and loads a texture file once."""
    red = with_cube(textures=tuple(f"stripes-{k}" for k in range(6)))
    red = replace(red, light=replace(LAMP, color=(1.0, 0.0, 0.0), shadow=False, ambient=0.9, distance=9))
    plain = with_cube(textures=tuple(f"dots-{k}" for k in range(6)))
    with Renderer() as renderer:
        for params in (red, plain, red, plain):
            rng = np.random.default_rng(0)
            assert renderer.render(params, rng).jpeg_bytes == shown(params).jpeg_bytes
    assert shown(red).jpeg_bytes != shown(plain).jpeg_bytes


def test_each_face_of_a_cube_has_its_own_texture() -> None:
    """Trap: `changeTexture` does nothing here; `changeVisualShape` on a link does."""
    six = tuple(f"flat-{k}" for k in range(6))
    pictures = [shown(with_cube(textures=(*six[:k], "flat-77", *six[k + 1 :]))).image for k in range(6)]
    original, mask = shown(with_cube(textures=six)).image, shown(with_cube()).mask
    changed = [np.abs(p.astype(int) - original).max(axis=-1) > 20 for p in pictures]
    seen = [c[mask == 1].mean() for c in changed]
    assert sum(share > 0.1 for share in seen) == 3  # three faces look at the camera
    assert all(share < 0.01 for share in sorted(seen)[:3])


def test_tint_multiplies_the_texture() -> None:
    plain, tinted = (shown(with_cube(textures=("flat-3",), color=c)) for c in ((1, 1, 1), (0.2, 1, 1)))
    on = plain.mask == 1
    assert tinted.image[on][:, 0].mean() < 0.6 * plain.image[on][:, 0].mean()


def test_mask_and_depth_of_the_background() -> None:
    lens = replace(with_cube().camera, eye=(0.5, 0.0, 0.05), rotation=look_at((0.5, 0, 0.05), (0, 0, 0.05)))
    sample = shown(replace(with_cube(), camera=lens))
    nowhere = sample.mask == BACKGROUND_ID
    assert nowhere.any() and np.isinf(sample.depth[nowhere]).all() and np.isfinite(sample.depth[~nowhere]).all()
    # the front face stands 0.45 m away, in parallel to the sensor
    assert np.median(sample.depth[sample.mask == 1]) == pytest.approx(0.45, rel=0.002)


def test_distortion_applies_to_image_mask_and_corners_alike() -> None:
    rng = np.random.default_rng(5)
    off = []
    with Renderer() as renderer:
        for k1 in (-0.3, 0.3):
            for _ in range(10):
                params = sphere(rng)
                lens = replace(params.camera, k1=k1)
                _, _, mask = renderer.render_buffers(replace(params, camera=lens))
                rows, columns = np.nonzero(mask == 1)
                if len(rows) and min(rows.min(), columns.min(), 95 - rows.max(), 95 - columns.max()) > 0:
                    expected = lens.project(np.array([params.bodies[1].position]))[0]
                    off.append(np.hypot(columns.mean() - expected[0], rows.mean() - expected[1]))
    assert len(off) > 10 and np.median(off) < 0.5


@pytest.mark.slow
def test_the_same_theta_gives_the_same_bytes_in_another_process() -> None:
    task = RenderShard(DOMAINS["cube"], 64, 48)
    with Renderer() as renderer:
        here = [task.sample(renderer, np.random.SeedSequence(5, spawn_key=(i,))).jpeg_bytes for i in (3, 1)]
    code = (
        "import hashlib, numpy as np; from synthbook.simulation.export import RenderShard\n"
        "from synthbook.simulation.render import Renderer; from synthbook.simulation.randomize import DOMAINS\n"
        "s = RenderShard(DOMAINS['cube'], 64, 48).sample(Renderer(), np.random.SeedSequence(5, spawn_key=(3,)))\n"
        "print(hashlib.sha256(s.jpeg_bytes).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == hashlib.sha256(here[0]).hexdigest() != hashlib.sha256(here[1]).hexdigest()
    assert there.stderr == ""  # no greeting


@pytest.mark.slow
def test_memory_stays_flat() -> None:
    """Trap: removing bodies, or keeping and moving them, leaks; a reset for each scene does not."""
    process, domain = psutil.Process(), DOMAINS["cube"]
    with Renderer() as renderer:

        def go(first: int, last: int) -> float:
            for i in range(first, last):
                rng = np.random.default_rng(i)
                renderer.render(sample_params(domain, rng, width=64, height=48), rng)
            return process.memory_info().rss / 2**20

        before = go(0, 500)  # by then the textures are cached
        assert go(500, 1000) - before < 10


def test_invalid_arguments_are_refused() -> None:
    renderer = Renderer()
    renderer.close()
    renderer.close()
    with pytest.raises(InvalidArgument, match="closed"):
        renderer.render(with_cube(), np.random.default_rng(0))
    for changes, why in (
        ({"textures": ("velvet-1",)}, "velvet-1"),
        ({"textures": ("flat-x",)}, "flat-x"),
        ({"shape": "teapot"}, "one of cube"),
    ):
        with pytest.raises(InvalidArgument, match=why):
            shown(with_cube(**changes))
    lens = with_cube().camera
    for changes in ({"width": 0}, {"fx": -1}, {"near": 0}, {"near": 6}):
        with pytest.raises(InvalidArgument):
            replace(lens, **changes)
    for eye in ((0, 0, 1), (0, 0, 0)):
        with pytest.raises(InvalidArgument, match="straight above"):
            look_at(eye, (0, 0, 0))


def test_a_client_that_does_not_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "pybullet", SimpleNamespace(connect=lambda mode: -1, DIRECT=2))
    with pytest.raises(render.RenderError, match="synthbook doctor"):
        Renderer()


@pytest.mark.slow
def test_without_pybullet_there_is_one_message() -> None:
    code = (
        "import sys; sys.modules['pybullet'] = None\n"
        "from synthbook.cli.main import main; sys.exit(main(['render', '-n', '1', '--out', 'nowhere']))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.startswith("synthbook: PyBullet cannot be imported") and "Traceback" not in ran.stderr


def test_folders_of_killed_renderers_are_removed(tmp_path):
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    stale, others = f"{int(ended.stdout)}-x", {f"{os.getpid()}-x", "notes-x"}
    for name in (stale, *others):
        (tmp_path / (render.TEXTURES + name)).mkdir()
    render._remove_stale_folders(tmp_path)
    assert {path.name.removeprefix(render.TEXTURES) for path in tmp_path.iterdir()} == others
