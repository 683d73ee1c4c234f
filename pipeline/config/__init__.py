"""The experiment's schema and its loading from YAML. The only room that reads YAML."""

from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment

__all__ = ["Experiment", "load_experiment"]
