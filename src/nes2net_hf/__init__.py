"""Nes2Net deepfake speech detection on the Hugging Face stack. Importing this package registers the Auto classes."""

from typing import TYPE_CHECKING, Any

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
)

from .configuration_nes2net import Nes2NetConfig
from .feature_extraction_nes2net import Nes2NetFeatureExtractor
from .modeling_nes2net import Nes2NetForAudioClassification, Nes2NetForAudioFrameClassification, Nes2NetModel
from .version import __version__

if TYPE_CHECKING:
    from .detection import Detector, Result, detect

__all__ = [
    "Detector",
    "Nes2NetConfig",
    "Nes2NetFeatureExtractor",
    "Nes2NetForAudioClassification",
    "Nes2NetForAudioFrameClassification",
    "Nes2NetModel",
    "Result",
    "__version__",
    "detect",
]

AutoConfig.register("nes2net", Nes2NetConfig)
AutoFeatureExtractor.register(Nes2NetConfig, Nes2NetFeatureExtractor)
AutoModel.register(Nes2NetConfig, Nes2NetModel)
AutoModelForAudioClassification.register(Nes2NetConfig, Nes2NetForAudioClassification)
AutoModelForAudioFrameClassification.register(Nes2NetConfig, Nes2NetForAudioFrameClassification)


def __getattr__(name: str) -> Any:
    # Imported on demand, because detection loads the audio readers, which models do not need.
    if name in ("Detector", "Result", "detect"):
        from . import detection

        return getattr(detection, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
