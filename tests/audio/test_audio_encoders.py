"""How log-mels become tokens and tokens vectors, and the fixed targets of tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sounds import RATE, chance
from unlabeled.contract import Batch, Encoder
from unlabeled.errors import UserError
from unlabeled_audio.conformer import Conformer
from unlabeled_audio.encoders import ENCODERS, FrameViT, LogMelCNN, LogMelViT
from unlabeled_audio.features import FLOOR, frames_of, log_mel
from unlabeled_audio.readers import AudioReader
from unlabeled_audio.targets import Cepstra, ConstantQ
from unlabeled_audio.waves import Wav2Vec2


def test_patches_are_the_log_mel_cut(reader: AudioReader, batch: Batch) -> None:
    encoder = LogMelViT(reader.facts, width=16, depth=1)
    tokens = encoder.tokenize(batch)
    mel, count = log_mel(batch["wave"], batch["length"], reader.mel), frames_of(batch["length"], reader.mel)
    row, time, band = 1, 1, 2
    assert count[row] >= 32
    patch = mel[row, 16 * band : 16 * band + 16, 16 * time : 16 * time + 16]
    assert tokens.values[row, 4 * time + band].equal(patch.flatten())
    assert tokens.valid.sum(1).tolist() == [4 * max(1, int(x / 16 + 0.5)) for x in count.tolist()]
    assert tokens.coords[row, 4 * time + band, 1] == pytest.approx(2.5 / 4)


def test_frames_have_one_coordinate_and_all_bands(reader: AudioReader, batch: Batch) -> None:
    tokens = FrameViT(reader.facts, width=16, depth=1).tokenize(batch)
    mel = log_mel(batch["wave"], batch["length"], reader.mel)
    assert tokens.coords.shape[2] == 1
    assert tokens.values[0, 2].equal(mel[0, :, 8:12].flatten())


def test_patches_can_be_put_together_again(reader: AudioReader, batch: Batch) -> None:
    mel = log_mel(batch["wave"], batch["length"], reader.mel)
    for encoder in (LogMelViT(reader.facts, width=16, depth=1), LogMelCNN(reader.facts, width=8, channels=4)):
        tokens = encoder.tokenize(batch)
        there = encoder.unpatched(tokens.values).permute(0, 2, 1, 3).flatten(2)
        whole = int(tokens.valid[0].sum()) // encoder.rows * encoder.patch_frames
        count = min(whole, mel.shape[2])
        assert there[0, :, :count].equal(mel[0, :, :count])


def test_a_clip_at_another_rate_has_nearly_the_same_embedding(reader: AudioReader, tmp_path: Any) -> None:
    import soundfile as sf

    time = np.arange(24000) / 48000
    wave = 0.4 * np.sin(2 * np.pi * (300 + 400 * time) * time) * np.hanning(24000)
    sf.write(tmp_path / "high.wav", wave, 48000, subtype="FLOAT")
    sf.write(tmp_path / "low.wav", wave[::6], RATE, subtype="FLOAT")
    encoder = LogMelCNN(reader.facts, width=16, channels=4).eval()
    out = []
    for name in ("high.wav", "low.wav"):
        sample = AudioReader(str(tmp_path / name), facts=reader.facts)[0]
        out.append(encoder(encoder.tokenize({key: value[None] for key, value in sample.items()})).instances[0])
    assert torch.nn.functional.cosine_similarity(*out, dim=0) > 0.999


@pytest.mark.parametrize("name", ENCODERS)
def test_order_in_time_matters(reader: AudioReader, batch: Batch, name: str) -> None:
    encoder: Encoder = ENCODERS[name](reader.facts).eval()
    length = batch["length"][:1]
    wave = batch["wave"][:1, : int(length)]
    forth, back = (encoder(encoder.tokenize({"wave": one, "length": length})).instances for one in (wave, wave.flip(1)))
    assert not torch.allclose(forth, back, atol=1e-3)


def test_norms_do_not_count_padding(reader: AudioReader, batch: Batch) -> None:
    """In training too: more zeros after the clips change neither outputs nor running statistics."""
    longer = {**batch, "wave": torch.nn.functional.pad(batch["wave"], (0, 4000))}
    found = []
    for one in (batch, longer):
        torch.manual_seed(0)
        encoder = LogMelCNN(reader.facts, width=16, channels=4).train()
        out = encoder(encoder.tokenize(one)).instances
        found.append((out, encoder.stages[2].norm.running_mean))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_cepstra_are_those_of_scipy(reader: AudioReader, batch: Batch) -> None:
    from scipy.fft import dct

    mel = log_mel(batch["wave"], batch["length"], reader.mel)
    encoder = FrameViT(reader.facts, width=16, depth=1)
    target = Cepstra(encoder, cepstra=13)
    found = target(encoder.tokenize(batch))
    expected = dct(mel[0, :, 4:8].numpy(), type=2, axis=0, norm="ortho")[:13]
    expected[0] *= 2**0.5  # scipy scales the first by another constant
    assert np.allclose(found[0, 1, :13], expected.mean(1), atol=1e-3)
    slope = (expected * np.array([-3, -1, 1, 3]) / 20**0.5).sum(1) / 4**0.5
    assert np.allclose(found[0, 1, 13:26], slope, atol=1e-3)


def test_patches_of_one_time_share_their_cepstra(reader: AudioReader, batch: Batch) -> None:
    encoder = LogMelViT(reader.facts, width=16, depth=1)
    found = Cepstra(encoder)(encoder.tokenize(batch))
    assert found.shape[2] == 39
    assert found[:, 0].equal(found[:, 3])
    assert not found[:, 0].equal(found[:, 4])


def test_frames_cut_from_the_wave_are_those_of_torchaudio(reader: AudioReader) -> None:
    encoder = Wav2Vec2(reader.facts, width=32, depth=2).eval()
    wave = 0.3 * chance(2, 400 + 320 * 9)
    out = encoder(encoder.tokenize({"wave": wave, "length": torch.tensor([3280, 3280])}))
    theirs, _ = encoder.model(wave)
    assert out.tokens is not None
    assert out.tokens.shape == theirs.shape == (2, 10, 32)
    assert torch.allclose(out.tokens, theirs, atol=1e-5)


def test_weights_of_torchaudio_are_taken(reader: AudioReader, tmp_path: Any) -> None:
    from unlabeled.training.initial import initialise

    source, encoder = (Wav2Vec2(reader.facts, width=32, depth=1) for _ in range(2))
    torch.save(source.model.state_dict(), tmp_path / "weights.pt")
    initialise(encoder, str(tmp_path / "weights.pt"))
    for name, weight in source.model.state_dict().items():
        assert encoder.model.state_dict()[name].equal(weight), name


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda facts: LogMelViT(facts, patch_mels=10), "must divide them"),
        (lambda facts: LogMelViT(facts, width=18), "a multiple of 4"),
        (lambda facts: LogMelViT(facts, heads=5), "not a multiple of 5 heads"),
        (lambda facts: LogMelCNN({**facts, "mel": {**facts["mel"], "mels": 60}}), "halves the mel bands"),
        (lambda facts: Cepstra(LogMelViT(facts, width=16, depth=1), cepstra=80), "from 1 to the 64 mel bands"),
        (lambda facts: Wav2Vec2(facts, width=30, heads=4), "a multiple of 4 heads"),
    ],
)
def test_settings_that_do_not_fit(reader: AudioReader, make: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(reader.facts)


def test_a_mask_of_half_makes_a_transformer_cheaper(reader: AudioReader) -> None:
    """Hidden tokens are dropped, not carried along: the trunk sees no more places than are kept."""
    encoder = FrameViT(reader.facts, width=16, depth=1).eval()
    tokens = encoder.tokenize({"wave": chance(2, 8000), "length": torch.tensor([8000, 8000])})
    hidden = torch.zeros_like(tokens.valid)
    hidden[:, ::2] = True
    sizes: list[int] = []
    encoder.trunk.blocks[0].register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].shape[1]))
    encoder(tokens, hidden)
    assert sizes == [int((tokens.valid & ~hidden)[0].sum())]


def test_a_tone_is_in_its_band_of_the_constant_q(reader: AudioReader) -> None:
    encoder = Wav2Vec2(reader.facts, width=16, depth=1)
    target = ConstantQ(encoder)
    assert target.width == sum(32.703 * 2 ** (band / 12) < 0.45 * RATE for band in range(84))
    time = torch.arange(RATE) / RATE
    for band in (24, 45, 60):
        wave = (2 * np.pi * 32.703 * 2 ** (band / 12) * time).sin()[None]
        tokens = encoder.tokenize({"wave": wave, "length": torch.tensor([RATE])})
        found = target(tokens)
        assert found.shape == (*tokens.valid.shape, target.width)
        assert (found[0, 5:-5].argmax(1) == band).all()
    with pytest.raises(UserError, match="made for encoders of sound"):
        ConstantQ(torch.nn.Identity())
    with pytest.raises(UserError, match="more than a rate"):
        ConstantQ(encoder, low=9000.0)


def test_log_mels_tell_the_constant_q_as_far_as_they_can(reader: AudioReader) -> None:
    time = torch.arange(RATE) / RATE
    for encoder in (LogMelCNN(reader.facts, width=8, channels=4), LogMelViT(reader.facts, width=16, depth=1)):
        target = ConstantQ(encoder)
        torch.testing.assert_close(target.kernel.sum(0), torch.ones(target.width))
        for band in (48, 60, 72):
            wave = (2 * np.pi * 32.703 * 2 ** (band / 12) * time).sin()[None]
            tokens = encoder.tokenize({"wave": wave, "length": torch.tensor([RATE])})
            found = target(tokens)
            assert found.shape == (*tokens.valid.shape, target.width)
            assert ((found[0, encoder.rows * 2 : -encoder.rows * 2].argmax(1) - band).abs() <= 2).all()


def test_the_constant_q_is_the_sum_that_defines_it(reader: AudioReader) -> None:
    encoder = Wav2Vec2(reader.facts, width=16, depth=1)
    target = ConstantQ(encoder, bands=3, low=300.0)
    wave = chance(1, 4000)
    tokens = encoder.tokenize({"wave": wave, "length": torch.tensor([4000])})
    found = target(tokens)
    periods, middle = 1 / (2 ** (1 / 12) - 1), 6 * 320 + 200
    for band in range(3):
        hertz = 300.0 * 2 ** (band / 12)
        length = periods * RATE / hertz
        at = [n for n in range(-2000, 2001) if abs(n) <= length / 2 and 0 <= middle + n < 4000 - 80]
        window = {n: 0.5 + 0.5 * np.cos(2 * np.pi * n / length) for n in range(-2000, 2001) if abs(n) <= length / 2}
        total = sum(window.values())
        value = sum(window[n] / total * float(wave[0, middle + n]) * np.exp(2j * np.pi * hertz / RATE * n) for n in at)
        power = abs(value * encoder.mel.window / 2) ** 2
        goal = (np.log(power + FLOOR) - encoder.mel.mean) / encoder.mel.std
        assert found[0, 6, band].item() == pytest.approx(goal, abs=1e-3)


def test_a_conformer_hears_no_padding_and_knows_order(reader: AudioReader, batch: Batch) -> None:
    encoder = Conformer(reader.facts, width=16, depth=2, heads=2, kernel=5).eval()
    longer = {**batch, "wave": torch.nn.functional.pad(batch["wave"], (0, 3000))}
    torch.testing.assert_close(encoder(encoder.tokenize(longer)).instances, encoder(encoder.tokenize(batch)).instances)
    tokens = encoder.tokenize(batch)
    turned = encoder(replace(tokens, values=tokens.values.flip(1), valid=tokens.valid.flip(1))).instances
    assert (turned - encoder(tokens).instances).abs().max() > 1e-4
    with pytest.raises(UserError, match="odd number"):
        Conformer(reader.facts, kernel=4)
    with pytest.raises(UserError, match="not a multiple of 5 heads"):
        Conformer(reader.facts, heads=5)
