"""Convert official checkpoints to folders in the Hugging Face layout, and back."""

from ..errors import ConversionError
from .converting import Converted, convert
from .to_official import to_official

__all__ = ["ConversionError", "Converted", "convert", "to_official"]
