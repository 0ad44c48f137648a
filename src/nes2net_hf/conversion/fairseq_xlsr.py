"""The systems on fairseq's XLS-R 300M: ASVspoof 2021 LA and DF, In-the-Wild."""

from .system import System

# Keys that fairseq's wav2vec 2.0 needs for pre-training only.
PRETRAINING = ("quantizer.", "project_q.", "final_proj.", "input_quantizer.", "project_inp.", "target_glu.")

FAIRSEQ_XLSR = System(
    name="fairseq-xlsr",
    title="Nes2Net on fairseq's XLS-R (ASVspoof 2021 LA and DF, In-the-Wild)",
    encoder_prefix="ssl_model.model.",
    encoder_type="wav2vec2",
    encoder_config="xlsr-300m",
    encoder_name="XLS-R 300M",
    base_model="facebook/wav2vec2-xls-r-300m",
    dilation=2,
    score="bonafide_logit",
    length_policy="first",
    window_length=64_600,
    do_normalize=False,
    class_weights=(0.1, 0.9),
    benchmarks=("asvspoof2021-la", "asvspoof2021-df", "in-the-wild"),
    dropped=PRETRAINING,
)
