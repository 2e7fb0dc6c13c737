"""Known ways to play a clip, for methods that tell which it was: as it is, backwards, faster, and both."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.contract import Batch
from unlabeled_audio.features import Mel, centres, frames_of, place_of

WAYS = 4
FASTER = (5, 4)  # samples that become so many: a quarter faster, and as much higher


def played(batch: Batch, which: Tensor, mel: Mel) -> Batch:
    """Row i as it is (0), backwards (1), a quarter faster and higher (2), or both (3); shapes stay.

    The direction is what "arrow of time" is in videos (Wei et al., CVPR 2018), the speed that of speed perturbation
    (Ko et al., Interspeech 2015). A log-mel that a view has altered is warped as the wave is.

    Args:
        batch: "wave" [B, S], "length" [B] and, where a view made it, "logmel" [B, F, T].
        which: [B] int64.
    """
    return _backwards(_faster(batch, which >= 2, mel), which % 2 == 1, mel)


def _faster(batch: Batch, rows: Tensor, mel: Mel) -> Batch:
    if not rows.any():
        return batch
    from torchaudio.functional import resample

    old, new = FASTER
    wave, S = batch["wave"], batch["wave"].shape[1]
    short = resample(wave[rows], old, new)[:, :S]
    length = torch.where(rows, -(-batch["length"] * new // old), batch["length"])
    short = short * (torch.arange(short.shape[1], device=wave.device) < length[rows][:, None])
    out = {**batch, "wave": wave.clone(), "length": length}
    out["wave"][rows] = F.pad(short, (0, S - short.shape[1]))
    if "logmel" in batch:
        out["logmel"] = batch["logmel"].clone()
        out["logmel"][rows] = _warped(batch["logmel"][rows], frames_of(length[rows], mel), old / new, mel)
    return out


def _warped(logmel: Tensor, count: Tensor, speed: float, mel: Mel) -> Tensor:
    """Log-mels [B, F, T] of sounds so much faster; the mean beyond their `count` [B] frames and lowest band."""
    B, bands, T = logmel.shape
    band = place_of(centres(mel) / speed, mel).float().to(logmel.device)
    frame = torch.arange(T, device=logmel.device) * speed
    grid = torch.stack(torch.meshgrid((2 * band + 1) / bands - 1, (2 * frame + 1) / T - 1, indexing="ij")[::-1], -1)
    grid = grid.to(logmel.dtype).expand(B, -1, -1, -1)
    out = F.grid_sample(logmel[:, None], grid, padding_mode="zeros", align_corners=False)[:, 0]
    return out.masked_fill_((torch.arange(T, device=logmel.device) >= count[:, None])[:, None], 0.0)


def _backwards(batch: Batch, rows: Tensor, mel: Mel) -> Batch:
    out = {**batch, "wave": _reversed(batch["wave"], batch["length"], rows)}
    if "logmel" in batch:
        count = frames_of(batch["length"], mel)[:, None]
        out["logmel"] = _reversed(batch["logmel"], count, rows[:, None])
    return out


def _reversed(x: Tensor, count: Tensor, rows: Tensor) -> Tensor:
    """[..., S] the first `count` [...] of rows [...] from last to first; what follows them stays."""
    place = torch.arange(x.shape[-1], device=x.device)
    back = count[..., None] - 1 - place
    return x.gather(-1, torch.where(rows[..., None] & (back >= 0), back, place).expand_as(x))
