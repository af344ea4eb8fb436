"""The learners: DT-RAM, its objective, and how it is unrolled."""

from .dtram import DTRAM, DTRAMConfig
from .stopping import ConfidenceStop, FixedStop, LearnedStop, StoppingRule

__all__ = ["DTRAM", "ConfidenceStop", "DTRAMConfig", "FixedStop", "LearnedStop", "StoppingRule"]
