"""Log-mels cut into tokens: what encoders of log-mels share."""

from __future__ import annotations

import torch
from torch import Tensor

from unlabeled.contract import Batch, Encoder, Facts, Tokens
from unlabeled.errors import UserError
from unlabeled_audio.features import Mel, features


class LogMelEncoder(Encoder):
    """A token is `patch_mels` bands × `patch_frames` frames; tokens come time by time, the lowest bands first.

    Coordinates are the place in the clip, from its start to its end, and where there are several tokens to a time
    the band. A last token of less than half its frames is not there; frames after a clip's end are zero.
    """

    def __init__(self, facts: Facts, patch_mels: int, patch_frames: int):
        super().__init__()
        self.mel = Mel.of(facts)
        if patch_mels < 1 or patch_frames < 1 or self.mel.mels % patch_mels:
            raise UserError(
                f"patches of {patch_mels} bands and {patch_frames} frames do not fit {self.mel.mels} mel bands; the "
                "bands of a patch must divide them"
            )
        self.patch_mels, self.patch_frames = patch_mels, patch_frames
        self.bands, self.rows = self.mel.mels, self.mel.mels // patch_mels  # tokens to a time
        self.value_width = patch_mels * patch_frames
        self.coord_width = 1 if self.rows == 1 else 2

    def tokenize(self, batch: Batch) -> Tokens:
        mel, frames = features(batch, self.mel)
        mel = torch.nn.functional.pad(mel, (0, -mel.shape[2] % self.patch_frames))
        B, times = mel.shape[0], mel.shape[2] // self.patch_frames
        count = (frames / self.patch_frames + 0.5).floor().long().clamp(min=1)  # [B] times of each clip
        time = torch.arange(times, device=mel.device)
        valid = (time < count[:, None]).repeat_interleave(self.rows, 1)
        values = mel.reshape(B, self.rows, self.patch_mels, times, self.patch_frames).permute(0, 3, 1, 2, 4)
        values = values.reshape(B, times * self.rows, self.value_width).masked_fill(~valid[..., None], 0.0)
        place = ((time + 0.5) / count[:, None]).clamp(max=1).repeat_interleave(self.rows, 1)
        band = ((torch.arange(self.rows, device=mel.device) + 0.5) / self.rows).repeat(times).expand(B, -1)
        coords = place[..., None] if self.rows == 1 else torch.stack([place, band], -1)
        return Tokens(values, coords, valid, {})

    def unpatched(self, values: Tensor) -> Tensor:
        """[B, N, V] -> [B, times, F, patch_frames]."""
        B, N, _ = values.shape
        parts = values.view(B, N // self.rows, self.rows, self.patch_mels, self.patch_frames)
        return parts.flatten(2, 3)
