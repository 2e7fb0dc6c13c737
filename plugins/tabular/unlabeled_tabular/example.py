"""A tiny table shaped like real ones, for tests and the conformance kit."""

from __future__ import annotations

import csv
import random
from pathlib import Path

ROWS = 64
CITIES = ("Oslo", "Lima", "Cairo", "Hanoi")


def write(folder: Path) -> str:
    """A CSV of 64 rows: numbers, categories, a boolean, dates, missing cells, stray spaces, a label; its path."""
    chance = random.Random(0)
    path = folder / "people.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["age", "income", "city", "member", "since", "visits", "churned"])
        for row in range(ROWS):
            age = chance.randint(18, 80)
            income = "" if row % 9 == 4 else f"{1000 * chance.lognormvariate(3, 0.6):.2f}"
            city = " ?" if row % 11 == 5 else f" {chance.choice(CITIES)}"
            since = f"{chance.randint(2001, 2024)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
            member = str(chance.random() < age / 90).lower()
            visits = chance.randint(0, 12)
            table.writerow([age, income, city, member, since, visits, "yes" if visits < age / 12 else "no"])
    return str(path)
