"""The hunt's rows: which shipped configuration each of them runs, and with what changes."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OVERSAMPLING, MIXUP = "real+classical+oversampling", "real+classical+mixup"
ADDED = ["real+classical", OVERSAMPLING, MIXUP, "real+classical+synthetic@0.5", "real+classical+synthetic@1"]
PRETRAINED = ["synthetic-pretrained", "augmented-pretrained"]
POOL = [
    "real+classical",
    "real+classical+pseudolabels",
    "pool-gan",
    "gan-features",
    "simclr-features",
    "random-features",
]
MINORITY = [
    "real+classical", "real+classical+classweights", OVERSAMPLING, "real+classical+logitadjustment",
    "real+classical+refit", "minority-synthetic",
]  # fmt: skip
POOL_ALONE = ["real+classical", "real+classical+pseudolabels", "pool-gan"]
CURATED = ["real+classical", OVERSAMPLING, MIXUP, "real+classical+synthetic@0.5", "real+classical+curated@0.5"]
SMALL_64 = ["gan.generator_width=16", "gan.discriminator_width=16", "gan.num_images=40000"]
QUICK = ["classifier.steps=300", "classifier.seeds=3"]
ARCHIVE = ["gan.family=s3gan", "gan.num_images=60000", "data.surplus=unlabelled"]
TRANSLATED = [
    "real+classical",
    "real+classical+cellbalanced",
    "real+classical+groupdro",
    "cells-pretrained",
    "cells-consistency",
    "translated-consistency",
]
MUST_BEAT = [f"[translated-consistency, {control}]" for control in TRANSLATED[1:-1]]
THREE_DRAWS = ["data.split.draws=3", "classifier.seeds=2", f"verdict.comparisons=[{', '.join(MUST_BEAT)}]"]
EIGHT_DRAWS = ["data.split.draws=8", "classifier.steps=300", "classifier.seeds=2"]
WITHOUT_A_TRANSLATOR = [
    "real+classical+standardised",
    "real+classical+equalised",
    "real+classical+sitecentred",
    "real+classical+crosssitemixup",
    "real+classical+coral",
    "real+classical+dann",
]
TRANSLATIONS, MIXED = ["translated-consistency", "translated-pretrained"], ["translated-crosssitemixup"]
SCANNER_CONTROLS = {
    "": TRANSLATED[:-1],
    "more-": ["real+classical", *WITHOUT_A_TRANSLATOR],
    "mixed-": ["real+classical", "real+classical+cellbalanced", "real+classical+crosssitemixup"],
    "filters-": [
        "real+classical",
        "real+classical+bigaug",
        "real+classical+bigaug+crosssitemixup",
        "real+classical+amplitudemix",
    ],
}
WHOLE_IMAGES = ["gan.patch_halvings=3", "gan.identity=0", "gan.cycle=3", "gan.num_images=9600"]
"""A translator that changes the anatomy, at 28 x 28."""
WITHOUT_THE_REST = ["anomaly.detectors=[]", "privacy.attacks=[]"]
BETWEEN_SCANNERS = ["real+classical+crosssitemixup", "real+classical+bigaug", "real+classical+amplitudemix"]
MENDS = ["real+classical+cellbalanced", *BETWEEN_SCANNERS, "real+classical+bigaug+crosssitemixup"]
OUTLINE_CONTROLS = [
    "real+classical", *MENDS, "real+classical+standardised", "real+classical+equalised", "real+classical+pseudolabels",
    "real+classical+fixmatch", "cells-consistency",
]  # fmt: skip
ADAPTED_CONTROLS = [
    f"real+classical+{name}" for name in ("bigaug", "equalised", "matched", "standardised", "adabn", "coral", "dann")
]
MIXING = ("mixed-", "filters-")
"""Rows of which `translated-crosssitemixup` is the primary arm."""


def arms(names: list[str]) -> str:
    return f"arms=[{', '.join(names)}]"


def compared(controls: list[str], translations: list[str]) -> list[str]:
    """Changes for these arms, the first of the translations against each control but the first."""
    pairs = ", ".join(f"[{translations[0]}, {one}]" for one in controls[1:])
    return [arms([*controls, *translations]), f"verdict.arm={translations[0]}", f"verdict.comparisons=[{pairs}]"]


def planted(
    pair: str,
    classes: tuple[str, str],
    rare: dict[str, str],
    side: int,
    *,
    dims: int = 2,
    cells: tuple[int, int] = (5, 95),
) -> list[str]:
    """Changes of `shortcut-translated` for a planted pair of scanners.

    Args:
        classes: as the files number them; the second is positive.
        rare: each site -> its rare class.
        cells: images in a rare cell and in a common one.
    """
    files = [f"{site}: {{source: {{kind: npz, path: {ROOT / 'runs' / pair / site}.npz}}}}" for site in rare]
    counts = [
        f"{site}: {{{', '.join(f'{label}: {cells[label != own]}' for label in classes)}}}" for site, own in rare.items()
    ]
    return [
        f"data.sources={{{', '.join(files)}}}", f"data.classes=[{', '.join(classes)}]", f"data.positive=[{classes[1]}]",
        f"data.correlation={{{', '.join(counts)}}}", f"data.spatial_size={side}", f"data.spatial_dims={dims}",
        "verdict.stratum=reversed",
    ]  # fmt: skip


ROWS: dict[str, tuple[str, list[str]]] = {
    "pneumonia-50-added": (
        "pneumoniamnist",
        [arms(ADDED + PRETRAINED), "gan.num_images=60000", "data.split.draws=3", *QUICK],
    ),
    "pneumonia-50-pool": (
        "pneumoniamnist",
        [
            arms(POOL), *ARCHIVE, "data.split.draws=3", "classifier.encoder_images=30000", *QUICK,
        ],
    ),
    **{
        f"pneumonia-{size}-pool-8": (
            "pneumoniamnist",
            [arms(POOL_ALONE), *ARCHIVE, f"data.train_per_class={size}", *EIGHT_DRAWS],
        )
        for size in (10, 50)
    },
    **{
        f"pneumonia-10-pool-again-{seed}": (
            "pneumoniamnist",
            [
                arms(POOL_ALONE), *ARCHIVE, "data.train_per_class=10", *EIGHT_DRAWS, "data.split.draws=4",
                f"seed={seed}",
            ],
        )
        for seed in (1, 2)
    },
    **{
        f"pneumonia-10-pool-{more}{seed}": (
            "pneumoniamnist",
            [
                arms(own), *ARCHIVE, "data.train_per_class=10", *EIGHT_DRAWS, "data.split.draws=4", f"seed={seed}",
                *WITHOUT_THE_REST, *changes,
            ],
        )
        for more, own, changes in (
            (
                "archive-",
                ["real+classical", "real+classical+fadingpseudolabels", "real+classical+fixmatch"],
                ["gan.num_images=64", "synthesis.samples_per_class=20"],  # no arm of it looks at a synthetic image
            ),
            (
                "fresh-",
                POOL_ALONE,
                ["verdict.arm=pool-gan", "verdict.comparisons=[[pool-gan, real+classical+pseudolabels]]"],
            ),
            (
                "simclr-",
                ["real+classical", "simclr-features", "random-features", "pool-gan"],
                [
                    "verdict.arm=pool-gan",
                    "verdict.comparisons=[[pool-gan, simclr-features]]",
                    "classifier.encoder_images=30000",
                ],
            ),
        )
        for seed in range(11, 17)
    },
    "pneumonia-10-pool-both-21": (
        "pneumoniamnist",
        [
            *compared(
                [
                    "real+classical", "real+classical+pseudolabels", "real+classical+fadingpseudolabels",
                    "real+classical+fixmatch", "real+classical+fadingpseudolabels+fixmatch",
                ],
                ["pool-gan+fixmatch", "pool-gan"],
            ),
            *ARCHIVE, "data.train_per_class=10", *EIGHT_DRAWS, "data.split.draws=4", "seed=21", *WITHOUT_THE_REST,
        ],
    ),
    "pneumonia-50-curated-8": ("pneumoniamnist", [arms(CURATED), "gan.num_images=60000", *EIGHT_DRAWS]),
    "nih-curated": (
        "nih-cxr",
        [arms([*CURATED, "pretrained+classical"]), "gan.family=vae-gan", *SMALL_64, *QUICK],
    ),
    "pneumonia-200-to-20": (
        "pneumoniamnist",
        [
            arms(MINORITY), "data.train_per_class={normal: 20, pneumonia: 200}", "gan.num_images=60000",
            "data.split.draws=3", *QUICK,
        ],
    ),
    "nih-added": ("nih-cxr", [arms(ADDED), "gan.family=vae-gan", *SMALL_64, *QUICK]),
    **{
        name: (
            "adrenal3d",
            [
                arms(MINORITY), "gan.family=vae-gan", f"gan.num_images={images}", "gan.generator_width=8",
                "gan.discriminator_width=8", *QUICK,
            ],
        )
        for name, images in (("adrenal-minority", 6000), ("adrenal-minority-longer", 24000))
    },
    "tcga-added": ("tcga-contrast", [arms(ADDED), "gan.family=vae-gan", *SMALL_64, *QUICK]),
    **{
        f"shortcut-translated-{size}{seed}": (
            "shortcut-translated",
            [arms(TRANSLATED), *THREE_DRAWS, f"seed={seed}", *([f"data.spatial_size={size[:-1]}"] if size else [])],
        )
        for size in ("", "28-")  # images stored at 28 x 28 have a frame at 32 x 32
        for seed in (1, 2, 3, 4)
    },
    **{
        f"shortcut-mixed-28-{seed}": (
            "shortcut-translated",
            [
                *compared([*SCANNER_CONTROLS["mixed-"], *SCANNER_CONTROLS["filters-"][1:]], MIXED), *THREE_DRAWS[:2],
                f"seed={seed}", "data.spatial_size=28",
            ],
        )
        for seed in (1, 2, 3, 4)
    },
    **{
        f"shortcut-anatomy-28-{seed}": (
            "shortcut-translated",
            [
                *compared([*TRANSLATED[:-1], *BETWEEN_SCANNERS], ["translated-consistency", *MIXED]), *THREE_DRAWS[:2],
                f"seed={seed}", "data.spatial_size=28", *WHOLE_IMAGES,
            ],
        )
        for seed in (21, 22, 23, 24)
    },
    **{
        f"shortcut-anatomy-28-{few}-{seed}": (
            "shortcut-translated",
            [
                *compared(["real+classical", *MENDS[:-1], "cells-consistency"], ["translated-consistency", *MIXED]),
                *THREE_DRAWS[:2], f"seed={seed}", "data.spatial_size=28", *WHOLE_IMAGES,
                f"data.correlation={{children: {{normal: {few}, pneumonia: {100 - few}}}, "
                f"adults: {{normal: {100 - few}, pneumonia: {few}}}}}",
            ],
        )
        for few, seed in ((5, 31), (2, 32))
    },
    **{
        f"shortcut-two-28-{seed}": (
            "shortcut-translated",
            [
                *compared(["real+classical", *MENDS, "cells-consistency"], MIXED), *THREE_DRAWS[:2], *WITHOUT_THE_REST,
                f"seed={seed}", "data.spatial_size=28", *WHOLE_IMAGES,
                "data.correlation={children: {normal: 2, pneumonia: 98}, adults: {normal: 98, pneumonia: 2}}",
            ],
        )
        for seed in (51, 52, 53, 54)
    },
    **{
        f"adapt-labels-{few}-{seed}": (
            "shortcut-translated",
            [
                *compared(["real+classical", *MENDS[:-1], "real+classical+pseudolabels"], MIXED), *THREE_DRAWS[:2],
                *WITHOUT_THE_REST, f"seed={seed}", "data.spatial_size=28", "data.surplus=unlabelled", *WHOLE_IMAGES,
                "gan.between=archives", "verdict.stratum=site=children", "classifier.steps=300",
                f"data.correlation={{children: {{normal: {few}, pneumonia: {few}}}, "
                "adults: {normal: 60, pneumonia: 60}}",
            ],
        )
        for few, seed in ((5, 41), (20, 42))
    },
    "adapt-adults-71": (
        "adapt",
        [
            *compared(
                ["real+classical", *ADAPTED_CONTROLS, "real+classical+pseudolabels", "real+classical+fixmatch"],
                ["adapted-pseudolabels", "adapted"],
            ),
            "data.sources.children.unlabelled=false", "data.sources.adults.unlabelled=true", "seed=71",
            "data.spatial_size=28", "verdict.stratum=site=adults",
            "gan={family: cyclegan, batch_size: 8, by_site: true, between: archives, semantic: 1.0, cycle_noise: 0.02}",
            *WHOLE_IMAGES, "synthesis.samples_per_class=200",
        ],
    ),
    **{
        f"scanner-{pair}-{more}{seed}": (
            "shortcut-translated",
            [
                *compared(own, MIXED if more in MIXING else TRANSLATIONS), *THREE_DRAWS[:2], *changes, f"seed={seed}",
            ],
        )
        for more, own in SCANNER_CONTROLS.items()
        for pair, changes in {
            "chest": planted("chest", ("normal", "pneumonia"), {"edged": "normal", "soft": "pneumonia"}, 28),
            "fresh": [
                *planted("fresh", ("normal", "pneumonia"), {"edged": "normal", "soft": "pneumonia"}, 28),
                "verdict.stratum=balanced",
            ],
        }.items()
        for seed in (1, 2, 3, 4)
    },
    **{
        f"scanner-kernels-{seed}": (
            "shortcut-translated",
            [
                *compared(["real+classical", *MENDS, "cells-consistency"], [*MIXED, "translated-consistency"]),
                *THREE_DRAWS[:2], *WITHOUT_THE_REST, f"seed={seed}",
                *planted("kernels", ("cyst", "metastasis"), {"sharp": "metastasis", "soft": "cyst"}, 32),
                "verdict.stratum=balanced",
            ],
        )
        for seed in (1, 2, 3, 4)
    },
    **{
        f"scanner-kernels3d-{seed}": (
            "shortcut-translated",
            [
                *compared(["real+classical", *MENDS, "cells-consistency"], [*MIXED, "translated-consistency"]),
                *THREE_DRAWS[:2], *WITHOUT_THE_REST, f"seed={seed}", "gan.num_images=3200",
                *planted("kernels3d", ("cyst", "metastasis"), {"sharp": "metastasis", "soft": "cyst"}, 16, dims=3),
                "verdict.stratum=balanced",
            ],
        )
        for seed in (1, 2)
    },
    **{
        f"scanner-adrenal-{seed}": (
            "shortcut-translated",
            [
                *compared(OUTLINE_CONTROLS, [*MIXED, "translated-consistency"]), *THREE_DRAWS[:2], *WITHOUT_THE_REST,
                f"seed={seed}", *WHOLE_IMAGES, "gan.num_images=3200", "gan.semantic=0", "gan.between=archives",
                "data.surplus=unlabelled",
                *planted(
                    "adrenal", ("normal", "hyperplasia"), {"tight": "hyperplasia", "generous": "normal"}, 16, dims=3,
                    cells=(2, 38),
                ),
                "verdict.stratum=balanced",
            ],
        )
        for seed in (1, 2)
    },
    "shortcut-anatomy-64-61": (
        "shortcut-translated",
        [
            *compared(["real+classical", *MENDS[:-1], "cells-consistency"], ["translated-consistency", *MIXED]),
            *THREE_DRAWS[:2], "data.split.draws=2", "seed=61", "data.spatial_size=64", *WHOLE_IMAGES,
            "gan.patch_halvings=4", "gan.num_images=6400", *WITHOUT_THE_REST,
        ],
    ),
    "tcga-makers": (
        "tcga-contrast",
        [
            *compared(["real+classical", *MENDS, "cells-consistency"], [*MIXED, "translated-consistency"]),
            "data.site=manufacturer", "data.site_names=[GE MEDICAL SYSTEMS, SIEMENS]",
            "data.split={kind: kfold, folds: 3}", "verdict.stratum=balanced",
            "gan={family: cyclegan, num_images: 3200, batch_size: 8, by_site: true, between: sites, semantic: 1.0}",
            "synthesis.samples_per_class=100", "classifier.steps=300", *WITHOUT_THE_REST,
        ],
    ),
    "liver-added": ("demo", [arms(ADDED + PRETRAINED), "gan.num_images=60000", *QUICK]),
}  # fmt: skip
