"""How good is it: measures, baselines, and weights run over labelled pairs."""

from geocd.assess.evaluation import Evaluation, evaluate
from geocd.assess.metrics import Confusion, confusion

__all__ = ["Confusion", "Evaluation", "confusion", "evaluate"]
