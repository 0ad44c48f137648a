"""
Nes2Net deepfake speech detection on the Hugging Face stack. Importing this package registers the Auto classes; the
command line does so where it loads a model.
"""

import sys
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .configuration_nes2net import Nes2NetConfig
    from .detection import Detector, LiveDetector, Result, detect
    from .feature_extraction_nes2net import Nes2NetFeatureExtractor
    from .modeling_nes2net import Nes2NetForAudioClassification, Nes2NetForAudioFrameClassification, Nes2NetModel

__all__ = [
    "Detector",
    "LiveDetector",
    "Nes2NetConfig",
    "Nes2NetFeatureExtractor",
    "Nes2NetForAudioClassification",
    "Nes2NetForAudioFrameClassification",
    "Nes2NetModel",
    "Result",
    "__version__",
    "detect",
]


def __getattr__(name: str) -> Any:
    # Imported on demand, because detection loads the audio readers, which models do not need.
    if name in ("Detector", "LiveDetector", "Result", "detect"):
        from . import detection

        return getattr(detection, name)
    if name in __all__:
        from . import auto

        return getattr(auto, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# torch and transformers take seconds to import, and not every command needs them.
if not getattr(sys.modules.get("nes2net_cli"), "is_running", False):
    from . import auto as auto
