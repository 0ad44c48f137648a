"""The systems on unilm's WavLM-Large: ASVspoof 5."""

from .system import System

UNILM_WAVLM = System(
    name="unilm-wavlm",
    title="Nes2Net on unilm's WavLM (ASVspoof 5)",
    encoder_prefix="ssl_model.model.",
    encoder_type="wavlm",
    encoder_config="wavlm-large",
    encoder_name="WavLM-Large",
    base_model="microsoft/wavlm-large",
    dilation=1,
    score="bonafide_logit",
    length_policy="first",
    window_length=64_600,
    do_normalize=False,
    class_weights=(0.1, 0.9),
    benchmarks=("asvspoof5",),
)
