"""Two kinds of rhythm on three channels, one file a kind of format."""

import numpy as np


def write(folder):
    """Eight short recordings in two folders, and what the reader takes."""
    chance = np.random.default_rng(0)
    time = np.arange(300) / 100
    for number in range(8):
        kind = ("slow", "fast")[number % 2]
        (folder / kind).mkdir(exist_ok=True)
        rate = (1.5, 6.0)[number % 2]
        signal = np.stack([np.sin(rate * 6.28 * time + phase) for phase in chance.uniform(0, 6, 3)])
        signal += 0.2 * chance.standard_normal(signal.shape)
        if number < 4:
            np.savez(folder / kind / f"{number}.npz", signals=signal)
        else:
            np.savetxt(folder / kind / f"{number}.csv", signal.T, delimiter=",", header="x,y,z", comments="")
    return str(folder)
