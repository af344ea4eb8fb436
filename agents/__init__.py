"""The learners: DT-RAM, its objective, how it is unrolled; and the policy-only environments.

Importing this package registers them (`POLICY_IDS`) with Gymnasium.
"""

from .config import DTRAMConfig
from .dtram import DTRAM
from .policy_only import POLICY_IDS, FrozenClassifier, LookAndStop, register_all
from .prediction import Prediction, predict
from .stopping import ConfidenceStop, FixedStop, LearnedStop, StoppingRule

__all__ = [
    "DTRAM",
    "POLICY_IDS",
    "ConfidenceStop",
    "DTRAMConfig",
    "FixedStop",
    "FrozenClassifier",
    "LearnedStop",
    "LookAndStop",
    "Prediction",
    "StoppingRule",
    "predict",
]

register_all()
