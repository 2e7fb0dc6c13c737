"""A patient who is never to be met again, and the type of what writes series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

PATIENT = {"PatientName": "Quixote^Alonso", "PatientID": "LAMANCHA-1605", "PatientBirthDate": "15470929"}
PATIENT |= {"InstitutionName": "Hospital de Rocinante", "ReferringPhysicianName": "Panza^Sancho"}
PATIENT |= {"AccessionNumber": "DULCINEA77", "StudyDescription": "Windmill trauma"}
Slices = Callable[..., Path]
