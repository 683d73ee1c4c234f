"""Joins the evidence of a run: comparison, rule, subgroups and the decisions. `decide` is public."""

from pipeline.verdict.decide import VerdictPlan, decide

__all__ = ["VerdictPlan", "decide"]
