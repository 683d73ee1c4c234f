"""Does it help? Arms of classifiers, their figures, and the utility verdict."""

from pipeline.downstream.decide import VerdictPlan, decide

__all__ = ["VerdictPlan", "decide"]
