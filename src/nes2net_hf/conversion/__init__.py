"""Official checkpoints ↔ folders in the Hugging Face layout."""

from ..errors import ConversionError
from .converting import Converted, convert
from .to_official import to_official

__all__ = ["ConversionError", "Converted", "convert", "to_official"]
