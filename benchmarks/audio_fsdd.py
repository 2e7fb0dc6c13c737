"""Methods on spoken digits: pre-train without labels, probe on two splits. Writes docs/results/audio_fsdd.md.

Each run is a command that the page shows; runs already finished in --runs are not trained again.

    python benchmarks/audio_fsdd.py ../shared/data/audio/fsdd/recordings [--methods simclr] [--epochs 4] [--seeds 2]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from running import joined, of_tokens, spread, tuned

from unlabeled import plugins
from unlabeled.cli.tables import markdown
from unlabeled.evaluation.evaluate import evaluate
from unlabeled.evaluation.probes import Split, linear_probe
from unlabeled.evaluation.results import Result
from unlabeled_audio.readers import AudioReader

TRAIN, TEST = ("*_[1-4][0-9].wav", "*_[5-9].wav"), "*_[0-4].wav"  # the official split: the last number of the name
LABEL, SPEAKER = "{digit}_*", "*_{speaker}_*"
LEFT_OUT = {"supcon": "it takes labels", "atst": "it is `atst_clip`"}
TUNED = "--protocol finetune --epochs 10 --lrs 1e-3 --encoder-rate 1.0 --views global --seeds 1"
KINDS = {"trained": "trained (`{}`)", "from scratch": "from scratch: the supervised network"}
TITLES = {"official": "official", "speakers": "leave one speaker out"}
MIXED = ("simclr", "byol", "byol_a")  # their views also have a background of the training clips, as BYOL-A's


def options(name: str, epochs: int) -> str:
    """Flags of a row: methods of instances train the small net, those of tokens a transformer of frames."""
    encoder = "frame_vit" if of_tokens("audio", name) else "cnn --lr 1e-3"
    return f"--encoder {encoder} --epochs {epochs} --batch-size 64"


@dataclass(frozen=True)
class Job:
    """One pre-training run."""

    name: str
    epochs: int
    seed: int
    runs: Path

    @property
    def folder(self) -> Path:
        return self.runs / f"{self.name}-{self.epochs}-{self.seed}"

    def command(self, data: str) -> list[str]:
        train = training(data)
        background = ["--view.background", train] if self.name in MIXED else []
        flags = f"--method {self.name} {options(self.name, self.epochs)} --seed {self.seed} --out {self.folder}"
        return ["unlabeled", "audio", "pretrain", train, *flags.split(), *background]

    def run(self, data: str) -> None:
        """Train; one thread, so that runs can share the cores."""
        if (self.folder / "seconds").exists():
            return
        line = [sys.executable, "-m", "unlabeled.cli.main", *self.command(data)[1:]]
        script = f"import resource, subprocess, sys; r = subprocess.run({line!r}).returncode; "
        script += "u = resource.getrusage(resource.RUSAGE_CHILDREN); print('cpu', u.ru_utime + u.ru_stime); sys.exit(r)"
        start = time.perf_counter()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(line)}\n{done.stderr}")
        (self.folder / "seconds").write_text(done.stdout.split("cpu ")[-1].strip())
        print(f"{self.folder}: {self.seconds:.0f} processor s in {time.perf_counter() - start:.0f} s", flush=True)

    def tuning(self, data: str, split: str) -> list[str]:
        """The command that fine-tunes it, and trains the same network from scratch."""
        if split == "official":
            what = [training(data), "--test", f"{data}/{TEST}"]
        else:
            what = [data, "--groups", SPEAKER]
        line = ["unlabeled", "audio", "evaluate", str(self.folder), *what, "--label", LABEL, *TUNED.split()]
        return [*line, "--json", str(self.folder / f"finetune-{split}.json")]

    @property
    def seconds(self) -> float:
        """Processor time of the whole command."""
        return float((self.folder / "seconds").read_text())


def training(data: str) -> str:
    """The official training clips."""
    return ",".join(f"{data}/{pattern}" for pattern in TRAIN)


def main() -> None:
    """Train what is missing, evaluate, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--methods", default="all", help="names with commas between, or all")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--runs", default="runs/audio_fsdd")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0, help="the others follow; below it, what --out has counts")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--finetune", default="", metavar="SPLITS", help="official, speakers or both with a comma")
    parser.add_argument("--out", default="docs/results/audio_fsdd")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    out = Path(f"{flags.out}.json")
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    found.setdefault("features", statistics(flags.data))
    every = [name for name in plugins.load("audio").methods if name not in LEFT_OUT]
    names = every if flags.methods == "all" else flags.methods.split(",")
    seeds = range(flags.first_seed, flags.first_seed + flags.seeds)
    jobs = {name: [Job(name, flags.epochs, seed, Path(flags.runs)) for seed in seeds] for name in names}
    with ThreadPoolExecutor(flags.jobs) as pool:
        trained = {name: [pool.submit(job.run, flags.data) for job in many] for name, many in jobs.items()}
        for name, many in jobs.items():
            for one in trained[name]:
                one.result()
            before = found.setdefault("rows", {}).get(f"{name} {flags.epochs}", {})
            took = [before.get("seconds", 0.0)] * flags.first_seed + [job.seconds for job in many]
            encoder = options(name, 0).split()[1]
            row = {"method": name, "encoder": encoder, "epochs": flags.epochs, "seconds": float(np.mean(took))}
            kinds = measured(flags.data, many, baselines=encoder not in found.setdefault("untrained", {}))
            found["untrained"] |= {encoder: kinds["untrained"]} if "untrained" in kinds else {}
            if flags.finetune:
                job = Job(name, flags.epochs, 0, Path(flags.runs))  # the run whose commands the page shows
                row["tuned"] = {split: tuned(job.tuning(flags.data, split)) for split in flags.finetune.split(",")}
            row["trained"] = joined(before.get("trained", {}), kinds["trained"], flags.first_seed)
            found["rows"][f"{name} {flags.epochs}"] = {**before, **row}
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(found, indent=1) + "\n")
            page(found, Path(f"{flags.out}.md"))
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_utime:.0f} processor s for evaluation")


def statistics(data: str) -> dict[str, Any]:
    """Accuracy of the linear probe on the mean log-mel, and on its mean and deviation."""
    reader = AudioReader(data)
    mean = reader.raw()
    assert mean is not None
    deviation = np.zeros_like(mean)
    for rows, mel, frames in reader.spectrograms(range(len(reader))):
        there = (torch.arange(mel.shape[2]) < frames[:, None])[:, None]
        centred = (mel - torch.from_numpy(mean[rows])[..., None]) * there
        deviation[rows] = (centred.square().sum(2) / frames[:, None]).sqrt().numpy()
    digit, speaker = reader.labels(LABEL).astype(np.int64), reader.labels(SPEAKER)
    test = reader.labels("*_*_{take}").astype(np.int64) < 5

    def score(x: Any, out: Any) -> float:
        return linear_probe(Split(x[~out], digit[~out], x[out], digit[out]), 0)["accuracy"]

    kinds = {"mean log-mel": mean, "its mean and deviation": np.concatenate([mean, deviation], 1)}
    return {
        name: {"official": [score(x, test)], "speakers": [[score(x, speaker == one) for one in np.unique(speaker)]]}
        for name, x in kinds.items()
    }


def measured(data: str, jobs: list[Job], baselines: bool) -> dict[str, Any]:
    """Accuracies of trained encoders and, if wanted, of one untrained, by a linear probe and by 20 neighbours."""
    folders = [job.folder for job in jobs]
    how: dict[str, Any] = {"label": LABEL, "baselines": baselines}
    official = evaluate(folders, training(data), test=f"{data}/{TEST}", seeds=1, **how)
    speakers = evaluate(folders, data, groups=SPEAKER, seeds=1, **how)
    return {kind: _both(official, speakers, kind) for kind in ("trained", "untrained")[: 1 + baselines]}


def _both(official: Result, speakers: Result, kind: str) -> dict[str, Any]:
    """Values of each run, and of its speakers."""
    out: dict[str, Any] = {}
    for probe in ("linear", "knn"):
        rows = [
            next(
                row
                for row in result.rows
                if row.features.startswith(kind) and (row.probe, row.metric) == (probe, "accuracy")
            )
            for result in (official, speakers)
        ]
        groups = len(speakers.groups)
        values = rows[1].values
        out[probe] = {
            "official": list(rows[0].values),
            "speakers": [list(values[at : at + groups]) for at in range(0, len(values), groups)],
        }
    return out


def figures(one: dict[str, Any]) -> dict[str, str]:
    """Mean ± deviation over runs of the two splits, and the worst speaker."""
    means = [float(np.mean(run)) for run in one["speakers"]]
    worst = float(np.mean(one["speakers"], 0).min())

    return {
        "official": spread(one["official"]),
        "leave one speaker out": spread(means),
        "worst speaker": f"{worst:.3f}",
    }


def _official(row: dict[str, Any]) -> float:
    return float(np.mean(row["trained"]["linear"]["official"]))


def _tuning(rows: list[dict[str, Any]]) -> str:
    """What was fine-tuned, beside the same network from scratch, with the commands."""
    lines, commands = [], []
    for row in rows:
        splits = row.get("tuned", {})
        for kind, who in KINDS.items() if splits else ():
            means = {TITLES[split]: f"{np.mean(one[kind]['100%']):.3f}" for split, one in splits.items()}
            lines.append({"trained end to end": f"{row['encoder']}, {who.format(row['method'])}", **means})
        job = Job(row["method"], row["epochs"], 0, Path("runs/audio_fsdd"))
        commands += [shlex.join(job.tuning("recordings", split)[:-2]) for split in splits]
    if not lines:
        return ""
    return (
        "Trained end to end on all labels of a split with the same views, rate and ten epochs; one seed:\n\n"
        f"{markdown(lines)}\n```sh\n" + "\n".join(commands) + "\n```\n\n"
    )


def page(found: dict[str, Any], path: Path) -> None:
    """The table and the commands behind it."""
    lines = [
        {
            "features": name,
            "encoder": "",
            "epochs": "",
            "seeds": "",
            **figures(one),
            "20 neighbours": "",
            "processor s a run": "",
        }
        for name, one in found["features"].items()
    ]
    rows = sorted(found["rows"].values(), key=lambda row: (row["encoder"], -_official(row)))
    seen: set[str] = set()
    for row in rows:
        encoder = row["encoder"]
        kinds = ["trained"] if encoder in seen else ["untrained", "trained"]
        seen.add(encoder)
        for kind in kinds:
            trained = kind == "trained"
            one = row[kind] if trained else found["untrained"][encoder]
            near = " / ".join(list(figures(one["knn"]).values())[:2])
            lines.append(
                {
                    "features": f"`{row['method']}`" if trained else "untrained",
                    "encoder": encoder,
                    "epochs": str(row["epochs"]) if trained else "",
                    "seeds": str(len(one["linear"]["official"])),
                    **figures(one["linear"]),
                    "20 neighbours": near,
                    "processor s a run": f"{row['seconds']:.0f}" if trained else "",
                }
            )
    best = max(rows, key=_official)
    job = Job(best["method"], best["epochs"], 0, Path("runs/audio_fsdd"))
    left = "; ".join(f"`{name}`, since {why}" for name, why in LEFT_OUT.items())
    text = (
        "# Free Spoken Digit Dataset\n\n"
        "Accuracy of telling the ten digits by a linear probe of frozen features; mean ± standard deviation over\n"
        "seeds of pre-training. *Official*: fitted on 2,700 clips, tested on takes 0 … 4 of each speaker and digit\n"
        "(300). *Leave one speaker out*: fitted on five speakers, tested on the sixth, the mean over the six in turn.\n"
        "The last but one column is k-NN on the two splits. The encoders are pre-trained without labels on the 2,700\n"
        "clips, so in the second split they have heard the speaker that the probe has not. Budgets are small, for two\n"
        "slow cores; no setting was chosen by labels. Methods of instances train the small net, those of tokens a\n"
        f"transformer of frames. Left out: {left}.\n\n"
        f"{markdown(lines)}\n"
        f"{_tuning(rows)}"
        "Processor seconds are of the whole command, reading and saving included "
        f"({os.cpu_count()} processors, {platform.machine()}, no GPU, torch {torch.__version__}).\n\n"
        "A run and its numbers, here of seed 0, in the folder that holds `recordings`:\n\n```sh\n"
        + shlex.join(job.command("recordings"))
        + f"\nunlabeled audio evaluate {job.folder} '{training('recordings')}' \\\n"
        f"  --test 'recordings/{TEST}' --label '{LABEL}'\n"
        f"unlabeled audio evaluate {job.folder} recordings --label '{LABEL}' --groups '{SPEAKER}'\n```\n\n"
        "A row of it: `python benchmarks/audio_fsdd.py ../shared/data/audio/fsdd/recordings --methods "
        f"{best['method']} --epochs {best['epochs']} --seeds 1`.\n"
    )
    path.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
