"""The `gan:` section of each family, told apart by `family`.

A family is a file of `pipeline.adversarial.families`, which holds its section's class too and is found by its name
(`pipeline.config.by_name`): `wgan-gp` is the module `wgan_gp`, whose `FAMILY` says the rest.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipeline.config.by_name import module_named, names_in, or_nearest
from pipeline.config.gan import GanConfig

PACKAGE = "pipeline.adversarial.families"
DEFAULT_FAMILY = "sngan"


def family_names() -> tuple[str, ...]:
    """The names of all families, in the alphabet's order; none is imported."""
    return names_in(PACKAGE)


def family_module(name: str) -> ModuleType:
    """The module that holds the family called `name`.

    Raises:
        KeyError: there is no such family.
    """
    return module_named(PACKAGE, name)


def validate_gan(values: dict[str, Any]) -> GanConfig:
    """The `gan:` section from plain values, such as a trained generator's description."""
    return _section_adapter().validate_python(values)


def _of_its_family(values: Any) -> Any:
    """A section's values as its family's configuration."""
    if not isinstance(values, dict):
        return values
    name = values.get("family", DEFAULT_FAMILY)
    try:
        config: type[GanConfig] = family_module(name).FAMILY.config
    except KeyError:
        raise _no_such_family(name) from None
    return config.model_validate(values)


def _no_such_family(name: object) -> ValidationError:
    known = family_names()
    error = PydanticCustomError(
        "no_such_family",
        "must be one of {known}{nearest}",
        {"known": ", ".join(known), "nearest": or_nearest(str(name), known)},
    )
    details = InitErrorDetails(type=error, loc=("family",), input=name)
    return ValidationError.from_exception_data("gan", [details])


GanSettings = Annotated[SerializeAsAny[GanConfig], BeforeValidator(_of_its_family)]


@cache
def _section_adapter() -> TypeAdapter[GanConfig]:
    return TypeAdapter(GanSettings)
