"""The shared volumes, where they are at hand, and a patient who is never to be met again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "medical"
PATIENT = {"PatientName": "Quixote^Alonso", "PatientID": "LAMANCHA-1605", "PatientBirthDate": "15470929"}
PATIENT |= {"InstitutionName": "Hospital de Rocinante", "ReferringPhysicianName": "Panza^Sancho"}
PATIENT |= {"AccessionNumber": "DULCINEA77", "StudyDescription": "Windmill trauma"}
Slices = Callable[..., Path]


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not at hand")
    return SHARED / name
