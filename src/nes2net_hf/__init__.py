"""Nes2Net deepfake speech detection on the Hugging Face stack. Importing it registers the Auto classes."""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification

from .configuration_nes2net import Nes2NetConfig
from .feature_extraction_nes2net import Nes2NetFeatureExtractor
from .modeling_nes2net import Nes2NetForAudioClassification, Nes2NetModel

__version__ = "0.1.0.dev0"

__all__ = [
    "Nes2NetConfig",
    "Nes2NetFeatureExtractor",
    "Nes2NetForAudioClassification",
    "Nes2NetModel",
    "__version__",
]

AutoConfig.register("nes2net", Nes2NetConfig)
AutoFeatureExtractor.register(Nes2NetConfig, Nes2NetFeatureExtractor)
AutoModel.register(Nes2NetConfig, Nes2NetModel)
AutoModelForAudioClassification.register(Nes2NetConfig, Nes2NetForAudioClassification)
