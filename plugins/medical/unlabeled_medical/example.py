"""Tiny volumes shaped like real ones, for tests and the conformance kit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

VOLUMES = 8


def write(folder: Path) -> str:
    """Eight NIfTI files of different sizes, spacings and orientations in two folders, and one cut short; the folder."""
    import nibabel

    chance = np.random.default_rng(0)
    for number in range(VOLUMES):
        shape = tuple(int(x) for x in chance.integers(14, 20, 3))
        inside = sum(((np.indices(shape) - np.reshape(shape, (3, 1, 1, 1)) / 2) / (5 + number % 3)) ** 2) < 1
        voxels = 200 * inside + chance.gamma(2.0, 10.0, shape) + 40 * np.sin(np.indices(shape)[number % 3] / 3) * inside
        affine = np.diag([-1.0 if number % 2 else 1.0, 1.0, 1.0, 1.0])
        kind = "round" if number % 3 else "small"
        (folder / kind).mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(voxels.astype(np.int16), affine), folder / kind / f"scan{number}.nii.gz")
    whole = (folder / "small" / "scan0.nii.gz").read_bytes()
    (folder / "small" / "broken.nii.gz").write_bytes(whole[: len(whole) // 2])
    return str(folder)
