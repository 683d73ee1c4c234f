"""`verdict:` — the decision rule, fixed before the run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from pipeline.config.data import Positive
from pipeline.config.section import Section


class SubgroupConfig(Section):
    """A column of the manifest whose values are subgroups of patients; `edges` cut its numbers into bands.

    Attributes:
        column: of the manifest.
        edges: ascending numbers that bands end at, such as [40, 65]; none = every value is a subgroup.
    """

    column: str
    edges: tuple[float, ...] = ()

    @field_validator("edges")
    @classmethod
    def _edges_ascend(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if list(edges) != sorted(set(edges)):
            raise ValueError(f"edges must ascend, such as [40, 65]; they are {list(edges)}")
        return edges


class VerdictConfig(Section):
    """The decision rule, fixed before the run.

    Attributes:
        threshold: youden-smoothed (of kernel-smoothed distributions), youden (of the bare counts), sensitivity@T or
            specificity@T, fixed on val fit by fit.
        unit: image, or patient: the mean score of a patient's images, diseased if any of them is.
        arm: the candidate of the primary comparison; empty: the one with synthetic images that is best on val.
        comparisons: further planned pairs [arm, reference]; they share alpha with the primary one by Holm's rule.
        subgroups: columns such as `sex` or `{column: age, edges: [40, 65]}`: every arm in each of them.
        probe: columns such as `manufacturer`: can they be read off the images, and does the classifier lean on them?
        endpoint: what arms are compared by; `worst_cell` (with `data.site`) is the share of right calls, at each fit's
            threshold, in the cell of site and class where it is lowest.
        stratum: with `data.site`, the test images that the endpoint is of: `balanced` = all, every cell of site and
            class counting the same; `reversed` = only cells that are rarer in training than if site and class were
            independent, all counting the same; `site=NAME` = one site; "" = all as they are.
        margin: a gain that matters, in units of the endpoint (0.02 = 2 points).
        alpha: chance of a false `helps` or `harms`, two-sided; planned comparisons share it.
        bootstrap: resamplings of patients and fits behind every interval.
    """

    endpoint: Literal["auroc", "auprc", "sensitivity", "specificity", "balanced_accuracy", "worst_cell"] = "auroc"
    stratum: str = Field("", pattern=r"^(balanced|reversed|site=.+)?$")
    margin: Positive = 0.02
    alpha: float = Field(0.05, gt=0, lt=0.5)
    bootstrap: int = Field(2000, ge=100)
    threshold: str = Field(
        "youden-smoothed", pattern=r"^(youden(-smoothed)?|(sensitivity|specificity)@(0\.\d+|1(\.0)?))$"
    )
    unit: Literal["image", "patient"] = "image"
    arm: str = ""
    comparisons: tuple[tuple[str, str], ...] = ()
    subgroups: tuple[SubgroupConfig, ...] = ()
    probe: tuple[str, ...] = ()

    @field_validator("subgroups", mode="before")
    @classmethod
    def _a_name_is_a_column(cls, subgroups: Any) -> Any:
        columns = subgroups if isinstance(subgroups, list | tuple) else [subgroups]
        return [{"column": column} if isinstance(column, str) else column for column in columns]
