"""The learners: DT-RAM, its loss and its unroll, rival networks, and the policy-only environments.

Importing this package registers those environments (`POLICY_IDS`) with Gymnasium.

Raises:
    dtram_env.optional.MissingDependencyError: torch or safetensors is not installed.
"""

from dtram_env.optional import MissingDependencyError

try:
    import safetensors  # noqa: F401
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        f"{error.name} is not installed: run `pip install 'dtram[train]'`", name=error.name
    ) from error

from .config import DTRAMConfig
from .dtram import DTRAM
from .loading import load_agent
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
    "load_agent",
    "predict",
]

register_all()
