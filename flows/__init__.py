"""Prefect flow, schedule and command line: the only room that imports prefect. A task is a thin wrapper of a stage."""

from flows.environment import set_prefect_environment

set_prefect_environment()
