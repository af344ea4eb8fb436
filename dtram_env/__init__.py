"""DT-RAM's task: classify an image one glimpse at a time, and stop when you have seen enough.

Importing this package registers the environments (`ENV_IDS`) with Gymnasium. It loads neither torch
nor torchvision; the features that need them import them (see `optional`).
"""

from .belief import Classifier
from .env import GlimpseEnv
from .evaluate import Evaluation, evaluate
from .policy import CenterPolicy, Policy, RandomPolicy, ScanPolicy
from .registration import ENV_IDS, register_all
from .suite import SUITE, evaluate_suite
from .vector_env import GlimpseVectorEnv

__version__ = "0.1.0"

__all__ = [
    "ENV_IDS",
    "SUITE",
    "CenterPolicy",
    "Classifier",
    "Evaluation",
    "GlimpseEnv",
    "GlimpseVectorEnv",
    "Policy",
    "RandomPolicy",
    "ScanPolicy",
    "__version__",
    "evaluate",
    "evaluate_suite",
]

register_all()
