"""The glossary: every term of art of the reports, of which a page shows those that it uses."""

from __future__ import annotations

import html
import re

GLOSSARY = (
    ("Anomaly score", "how unlike a normal image the GAN's discriminator finds an image; higher means more abnormal"),
    (
        "Arm",
        "one way of making the classifier's training set; all arms share network, steps, schedule and test patients",
    ),
    (
        "AUPRC",
        "area under the curve of PPV over sensitivity (average precision); guessing gives the share of diseased images",
    ),
    ("AUPRO", "overlap of a map with the lesions, over false alarms at pixels"),
    ("AUROC", "area under the ROC curve: the chance that a diseased image scores above a healthy one; 0.5 is guessing"),
    ("Balanced accuracy", "mean of sensitivity and specificity"),
    ("BCa", "bias-corrected and accelerated: a bootstrap interval that allows for skew"),
    ("Bootstrap", "intervals from many draws of patients, with replacement, from those there are"),
    ("Brier score", "mean squared error of the predicted probability; 0 is perfect"),
    (
        "Calibration error",
        "mean gap between predicted probability and observed share over ten bins; 0 is perfect; falls with more images",
    ),
    ("Classical augmentation", "small random shifts, turns and grey-scale changes of training images"),
    ("Confounder", "something other than disease (such as the scanner's maker) from which the class can be guessed"),
    ("Coverage", "share of real images that have a synthetic one near them"),
    ("DeLong", "a test of the difference between two AUROCs on the same patients"),
    ("Density", "how many real images' neighbourhoods hold a synthetic image; about 1 for real ones"),
    ("Dice", "overlap of two regions: 0 none, 1 the same"),
    (
        "Differential privacy, ε",
        "a proven bound on what the weights can tell of one patient; a smaller ε promises more",
    ),
    (
        "FID",
        "Fréchet distance between the features of synthetic and of real images; 0 is best; few images make it larger",
    ),
    ("Fold", "one way of dividing the patients into training, validation and test"),
    (
        "GAN",
        "generative adversarial network: a generator of images trained against a network that tries to spot its fakes",
    ),
    ("GAN seed", "the random start of one GAN training; another seed gives another generator from the same patients"),
    ("Gate", "the check, on validation images, that the generators worked at all"),
    ("Grad-CAM", "a map of where in an image a classifier finds what speaks for a class, from its last layers"),
    ("Holm", "a correction of p-values for making several comparisons, by their order"),
    (
        "Inception score",
        "how clearly and how evenly a classifier sees its classes in the images, from 1 to their number",
    ),
    (
        "Interval",
        "range that would hold the true value in most repetitions with new patients (95 % unless said otherwise)",
    ),
    (
        "KID",
        "kernel distance between the features of synthetic and of real images; near 0 is best, however few the images",
    ),
    ("Latent, latents", "the random numbers that a generator makes one image from"),
    ("Leakage", "a test patient's image reaching training; results are then too good, and radaug refuses to go on"),
    ("Look", "one use of the test patients' results; what is chosen after several looks is too good"),
    ("Macro", "mean over the classes, each class counting the same"),
    ("Margin", "the smallest difference that would matter, fixed before the run"),
    ("McNemar", "a test of the calls on which two classifiers disagree"),
    (
        "Mean over fits",
        "mean of the separately computed values of all folds and seeds; scores are never pooled across folds",
    ),
    (
        "Membership advantage",
        "how much better than guessing an attack tells training patients from unseen ones: TPR less FPR",
    ),
    ("Memorisation", "a generator repeating images of its training patients instead of making new ones"),
    ("Mixup", "training on mixtures of two images and their labels"),
    ("MS-SSIM", "multi-scale structural similarity: how alike two images are, 1 for the same"),
    (
        "Near copy, near copies",
        "a synthetic image within a quarter of what unseen patients' images usually keep from training images; a copy "
        "where it is also nearer than half of what any synthetic image comes to an unseen patient",
    ),
    ("Operating point", "sensitivity and specificity at the threshold that was fixed on validation patients"),
    ("p-value, p", "how often chance alone would show a difference this large if there were none"),
    ("Point", "one hundredth: a sensitivity of 0.85 is 2 points above 0.83"),
    (
        "PPV, NPV",
        "share of images called diseased (called healthy) that are; they hold for this share of diseased images",
    ),
    ("Precision", "share of synthetic images that lie among real ones in feature space"),
    ("Recall", "share of real images that lie among synthetic ones in feature space"),
    ("ROC", "sensitivity over false alarms for every threshold"),
    ("Satterthwaite", "approximate degrees of freedom where two kinds of scatter add up"),
    ("Sensitivity", "share of diseased images that the classifier finds"),
    ("Specificity", "share of images without the disease that the classifier calls so"),
    ("Sweep", "images in which one thing asked of the generator changes step by step, and all else is held"),
    ("Synthetic image", "an image made by a generator; it shows no patient"),
    ("TPR, FPR", "share of members an attack finds, and share of unseen patients it takes for members"),
    ("TRIPOD+AI", "a guideline on what a report of a prediction model should tell"),
    ("Validation patients", "patients kept from training, on which thresholds are fixed"),
    ("Youden", "sensitivity plus specificity less 1; a threshold is put where it is largest"),
)
"""Term and meaning; a term with a comma has several spellings, of which any calls for it."""
_NOT_TEXT = re.compile(r"<[^>]*>")


def terms_in(page: str) -> list[tuple[str, str]]:
    """The entries for what the HTML `page` names, in the glossary's order."""
    text = html.unescape(_NOT_TEXT.sub(" ", page))
    return [(term, meaning) for term, meaning in GLOSSARY if _is_named(term, text)]


def _is_named(term: str, text: str) -> bool:
    spellings = "|".join(re.escape(one) for one in term.split(", "))
    return re.search(rf"(?<![\w-])(?:{spellings})s?(?![\w])", text, re.IGNORECASE) is not None
