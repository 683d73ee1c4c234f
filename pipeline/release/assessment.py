"""The parts of the data card that are sentences: intended use, limits, and an anonymity assessment.

The headings of the assessment are what EDPB Opinion 28/2024 on AI models asks for: extraction, inference by queries,
each data subject, all means reasonably likely to be used, documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INTENDED_USE = (
    "Research and teaching on methods: augmentation, pre-training, tests of software that reads such files.",
    "Not for diagnosis, nor as evidence about any patient, disease or device.",
)
LIMITS = (
    "Images were drawn from a generator and not taken of anybody. Shapes, frequencies and the link of image and class "
    "are those that it learned, with its errors; a finding here needs real images before it counts.",
    "Classes are as many as were asked for: their shares say nothing about how common a disease is.",
    "Rare looks of the source may be missing, and groups that were rare in it are shown worse.",
    "Images keep the grid on which the generator learned; finer detail of the source is not there.",
    "The audit holds for this generator and these images, and for the attacks that were made: it is no proof.",
)
ASSESSMENT_NOTE = (
    "Material for the controller's own assessment, in the order of EDPB Opinion 28/2024. It is no legal advice, and "
    "does not state that the pack is anonymous."
)

_UNTRIED = {
    "linkage": "another image of a patient that the attacker holds",
    "attribute": "values of a patient, such as sex and age, read from the images",
    "match": "copies under strong noise",
    "lira": "shadow generators",
}
"""What an attack of this name would have tried."""
_NEVER_TRIED = "turns, crops, and what nobody has thought of"


def assessment(
    evidence: Mapping[str, Any],
    copies: Mapping[str, Any],
    cohort: Mapping[str, int],
    *,
    generator: bool,
    certified: bool,
) -> dict[str, str]:
    """The five headings, each with what this pack's figures say to it."""
    attacks = {name: one for name, one in evidence["attacks"].items() if isinstance(one, dict) and "rates" in one}
    smallest = evidence["attacks"].get("smallest") or {}
    untried = [what for name, what in _UNTRIED.items() if name not in attacks]
    said = {
        "extraction": [
            f"{copies['left_out']} of {copies['images']} images were left out as near copies of a training image "
            f"(within {copies['near']:g} of the distance at which unseen real images usually lie to one; of unseen "
            f"real images {100 * copies['control']:.1f} % are that near). None was a copy beyond chance.",
            "The generator's weights are in the pack: whoever holds them can make images that nobody has looked at."
            if generator
            else "The generator is not in the pack.",
        ],
        "inference by queries": [
            "The generator can be asked without limit; attacks by one who holds it were made."
            if generator
            else "The pack is a fixed set of images: nobody can ask the generator for more.",
            f"Attacks on membership: {', '.join(attacks) or 'none'}.",
            *(_attack_words(name, one) for name, one in attacks.items()),
            f"A membership advantage of {evidence['tolerated_advantage']:g} is tolerated.",
        ],
        "each data subject": [
            f"Judged patient by patient, over {cohort['train_patients']} training patients and "
            f"{cohort['unseen_patients']} whom the generator never saw.",
            *(_worst_words(name, one) for name, one in attacks.items()),
            *(
                [f"A leak of fewer than {smallest['patients']} patients could be there unseen."]
                if "patients" in smallest
                else []
            ),
        ],
        "means reasonably likely to be used": [
            "Tried: the attacks above, each beside a control of members against members, and those on images beside a "
            "planted leak that they had to see.",
            f"Not tried: {'; '.join([*untried, _NEVER_TRIED])}.",
            "A certificate of differential privacy bounds all of them: certificate.json."
            if certified
            else "There is no certificate of differential privacy.",
        ],
        "documentation": [
            "This card, provenance.csv (each image's seed, class, truncation and the digest of the weights), "
            "croissant.json, and digests of every file. The run with its evidence stays with the controller."
        ],
    }
    return {heading: " ".join(sentences) for heading, sentences in said.items()}


def _attack_words(name: str, outcome: Mapping[str, Any]) -> str:
    shown = [one for one in outcome["rates"] if (one["name"], one["unit"]) == ("auroc", "patient")]
    blind = " (it would not see a planted leak, and clears nobody)" if outcome.get("blind") else ""
    told = (f"AUROC {one['value']:.3f} by patient, members among themselves {one['control']:.3f}" for one in shown)
    return f"{name}: {', '.join(told) or 'no AUROC'}{blind}."


def _worst_words(name: str, outcome: Mapping[str, Any]) -> str:
    return (
        f"{name}: {outcome['standing_out']} training patients stand out from all unseen ones (chance "
        f"{outcome['standing_out_p']:.2g}); the highest score is {outcome['worst']:.2f}, of an unseen patient "
        f"{outcome['worst_control']:.2f}."
    )
