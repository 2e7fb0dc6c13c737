"""A backbone that hears the wave itself: wav2vec 2.0's and HuBERT's convolutions and transformer, by torchaudio."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from unlabeled.contract import Alteration, Batch, Encoded, Encoder, Facts, LibraryModel, Tokens
from unlabeled.errors import UserError
from unlabeled.layers import is_exporting, mean_of
from unlabeled_audio.features import FLOOR, Mel

CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))  # kernel and stride of the papers' seven
FIELD, STRIDE = 400, 320  # samples that one frame is made of, and from one to the next: 25 and 20 ms at 16 kHz


@lru_cache(maxsize=16)
def _filters(bands: int, rate: int, device: torch.device) -> Tensor:
    """[129, F]."""
    from torchaudio.functional import melscale_fbanks

    out: Tensor = melscale_fbanks(129, 0.0, rate / 2, bands, rate)
    return out.to(device)


class Wav2Vec2(Encoder):
    """Convolutions over 400 samples and a transformer over frames (arXiv 2006.11477, 2106.07447).

    A token is the 400 samples that a frame is made of, cut before any weight: neighbours share 80 samples, as they do
    in the papers, but nothing of a hidden token reaches another by the convolutions. Hidden ones are a learned blank
    before the transformer. Layer norm in the convolutions (the papers' large models), since the group norm of the
    small ones goes over a clip's frames, hidden ones too.

    `--init` takes a state dict of torchaudio's `wav2vec2_model` with extractor_mode "layer_norm" (WAV2VEC2_XLSR53, say:
    --encoder.width 1024 --encoder.depth 24 --encoder.heads 16 --encoder.channels 512 --sample-rate 16000).

    Args:
        facts: of the reader.
        width: D, of a token and of a clip.
        depth: transformer layers.
        heads: of attention.
        channels: of the convolutions.
        positions: frames that the positional convolution sees.
        dropout: in the transformer.
    """

    value_width, coord_width, backbone = FIELD, 1, "model"
    bands, rows = 20, 1  # of the log-mels that targets are made of, and tokens to a time

    def __init__(
        self,
        facts: Facts,
        *,
        width: int = 128,
        depth: int = 3,
        heads: int = 4,
        channels: int = 32,
        positions: int = 128,
        dropout: float = 0.0,
    ):
        super().__init__()
        from torchaudio.models import wav2vec2_model

        groups = min(16, width)
        if min(width, depth, heads, channels, positions) < 1 or width % heads or width % groups:
            raise UserError(
                f"width {width} must be a multiple of {heads} heads and of {groups} groups, and depth, channels and "
                "positions at least 1"
            )
        self.width = self.embed_width = width
        self.depth, self.mel = depth, Mel.of(facts)
        self._arguments: dict[str, Any] = {
            "extractor_mode": "layer_norm",
            "extractor_conv_layer_config": [(channels, kernel, stride) for kernel, stride in CONVOLUTIONS],
            "extractor_conv_bias": True,
            "encoder_embed_dim": width,
            "encoder_projection_dropout": dropout,
            "encoder_pos_conv_kernel": positions,
            "encoder_pos_conv_groups": groups,
            "encoder_num_layers": depth,
            "encoder_num_heads": heads,
            "encoder_attention_dropout": dropout,
            "encoder_ff_interm_features": 4 * width,
            "encoder_ff_interm_dropout": dropout,
            "encoder_dropout": dropout,
            "encoder_layer_norm_first": True,
            "encoder_layer_drop": 0.0,
            "aux_num_out": None,
        }
        self.model: Any = wav2vec2_model(**self._arguments)
        self.blank = nn.Parameter(torch.empty(width).uniform_())

    def library_model(self) -> LibraryModel:
        says = "samples [B, S] at the reader's rate, and lengths [B]"
        state = self.model.state_dict()
        return LibraryModel("torchaudio", "torchaudio.models.wav2vec2_model", self._arguments, state, says)

    def tokenize(self, batch: Batch) -> Tokens:
        wave, length = batch["wave"], batch["length"]
        short = max(0, FIELD - wave.shape[1])
        values = nn.functional.pad(wave, (0, short)).unfold(1, FIELD, STRIDE)  # [B, N, 400]
        count = ((length - FIELD) // STRIDE + 1).clamp(min=1)
        place = torch.arange(values.shape[1], device=wave.device)
        valid = place < count[:, None]
        coords = ((place + 0.5) / count[:, None]).clamp(max=1)[..., None]
        return Tokens(values.masked_fill(~valid[..., None], 0.0), coords, valid, {})

    def unpatched(self, values: Tensor) -> Tensor:
        """Log-mels of three frames in each token, for targets: [B, N, 400] -> [B, N, F, 3]."""
        frames = values.unfold(2, FIELD // 2, FIELD // 4)
        power = torch.fft.rfft(frames * torch.hann_window(FIELD // 2, device=values.device), 256).abs().square()
        filters = _filters(self.bands, self.mel.rate, values.device)
        out: Tensor = (power @ filters + FLOOR).log().transpose(2, 3)
        return out

    def embed(self, tokens: Tokens) -> Tensor:
        exporting = is_exporting()  # a program cannot choose rows
        chosen = tokens.values.flatten(0, 1) if exporting else tokens.values[tokens.valid]
        x = chosen[:, None]  # [n, 1, 400]: each token by itself, padding not at all
        for layer in self.model.feature_extractor.conv_layers:
            x, _ = layer(x, None)
        frames = self.model.encoder.feature_projection(x.transpose(1, 2))[:, 0]
        if exporting:
            return torch.where(tokens.valid[..., None], frames.unflatten(0, tokens.valid.shape), 0)
        out: Tensor = frames.new_zeros(*tokens.valid.shape, self.width).index_put((tokens.valid,), frames)
        return out

    def forward(
        self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Alteration | None = None
    ) -> Encoded:
        x = self.embed(tokens)
        x = x if alter is None else alter(x)
        if hidden is not None:
            x = torch.where(hidden[..., None], self.blank.to(x.dtype), x)
        x = torch.where(tokens.valid[..., None], x, 0)
        N = x.shape[1]
        mask = tokens.valid[:, None, None].expand(-1, 1, N, N)
        transformer = self.model.encoder.transformer
        made: list[Tensor] = transformer.get_intermediate_outputs(x, mask)
        x = made[-1] if transformer.layer_norm_first else transformer.layer_norm(made[-1])
        x = torch.where(tokens.valid[..., None], x, 0)
        kept = torch.stack(made[self.depth - layers :]) if layers else None
        return Encoded(x, mean_of(x, tokens.valid), kept)
