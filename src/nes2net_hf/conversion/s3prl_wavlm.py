"""The systems on s3prl's WavLM-Large, whose 25 layers are aggregated: CtrSVDD."""

from .system import System

S3PRL_WAVLM = System(
    name="s3prl-wavlm",
    title="Nes2Net on the layers of s3prl's WavLM (CtrSVDD)",
    encoder_prefix="ssl_model.model.model.",
    encoder_type="wavlm",
    encoder_config="wavlm-large",
    encoder_name="WavLM-Large",
    base_model="microsoft/wavlm-large",
    dilation=1,
    score="log_odds",  # one logit x is returned as (-x/2, +x/2): its score is x
    length_policy="whole",
    window_length=64_000,
    do_normalize=True,
    class_weights=None,  # focal loss
    benchmarks=("ctrsvdd",),
)
