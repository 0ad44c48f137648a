"""Registers the Auto classes, so that `AutoModelForAudioClassification` and pipelines find Nes2Net models."""

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

AutoConfig.register("nes2net", Nes2NetConfig)
AutoFeatureExtractor.register(Nes2NetConfig, Nes2NetFeatureExtractor)
AutoModel.register(Nes2NetConfig, Nes2NetModel)
AutoModelForAudioClassification.register(Nes2NetConfig, Nes2NetForAudioClassification)
AutoModelForAudioFrameClassification.register(Nes2NetConfig, Nes2NetForAudioFrameClassification)
