"""How good is it: measures, baselines, and weights run over labelled pairs."""

from geocd.assess.evaluation import Assessment, Evaluation, assess, evaluate
from geocd.assess.metrics import Confusion, confusion
from geocd.assess.report import write_report

__all__ = [
    "Assessment",
    "Confusion",
    "Evaluation",
    "assess",
    "confusion",
    "evaluate",
    "write_report",
]
