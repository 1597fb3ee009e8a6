"""The methods by name: options, help, paper. Importing this imports no torch."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from anoaudit.errors import UsageError
from anoaudit.methods.anomem.options import AnoMemOptions
from anoaudit.methods.anoonly.options import AnoOnlyOptions
from anoaudit.methods.coft.options import CoftOptions
from anoaudit.methods.lamp.options import LampOptions
from anoaudit.methods.loe.options import LoeOptions


@dataclass(frozen=True)
class Method:
    """`module` holds `fit(items, options, trainer) -> Detector` and is imported by `load` only."""

    name: str
    title: str
    paper: str
    summary: str
    options: type[Any]
    module: str
    data: str = "images, videos, tables"  # what it takes
    labels: str = "none"  # what it has to be told
    when: str = ""  # when to take it
    heeds_alpha: bool = False  # its ranking depends on --contamination
    known_normals: bool = True  # a label 0 means a known normal; else it means unlabelled
    few_shot: bool = (
        False  # made for a handful of items, all taken as normal: one is enough, none is kept out of so few
    )

    def load(self) -> Callable[..., Any]:
        """The method's `fit`. Imports torch."""
        fit: Callable[..., Any] = importlib.import_module(self.module).fit
        return fit


METHODS = {
    method.name: method
    for method in (
        Method(
            name="loe",
            title="Latent Outlier Exposure",
            paper="Qiu et al., Latent Outlier Exposure for Anomaly Detection with Contaminated Data, ICML 2022 (arXiv 2202.08088)",
            summary="For unlabelled data with anomalies in it: the most anomalous share α of the items is not trained as normal.",
            options=LoeOptions,
            module="anoaudit.methods.loe.method",
            data="images, videos, tables",
            when="nobody has looked through the data yet; in doubt, this one",
            heeds_alpha=True,
        ),
        Method(
            name="lamp",
            title="Loss amplification",
            paper="Park et al., Neural Network Training Strategy to Enhance Anomaly Detection Performance: A Perspective on "
            "Reconstruction Loss Amplification, ICASSP 2024 (arXiv 2308.14595)",
            summary="For normal training data: an autoencoder whose error shows where an image, or which column of a row, is odd.",
            options=LampOptions,
            module="anoaudit.methods.lamp.method",
            labels="normals (--labels 0, --train-on normal)",
            when="the training data is known to be good, and you want to see where, or in which columns, new data is odd",
        ),
        Method(
            name="anomem",
            title="Multi-scale contrasted memory",
            paper="Jezequel et al., Anomaly Detection via Multi-Scale Contrasted Memory, 2022 (arXiv 2211.09041)",
            summary="For images: a network learns from them, from scratch, what is normal, and remembers prototypes of it at "
            "several scales; known anomalies (--labels, 1), few or many, help and are never remembered.",
            options=AnoMemOptions,
            module="anoaudit.methods.anomem.method",
            data="images, videos",
            labels="none, or known anomalies (--labels 1)",
            when="there are many pictures, unlike any that a pretrained network has seen, and a GPU",
        ),
        Method(
            name="anoonly",
            title="AnoOnly",
            paper="Zhou et al., AnoOnly: Semi-Supervised Anomaly Detection without Loss on Normal Data, 2023 (arXiv 2305.18798)",
            summary="For few known anomalies (--labels, 1) among unlabelled items (0 or empty): no loss on these, which may "
            "hold more anomalies. --contamination does not enter training; it sets the null of the p-values.",
            options=AnoOnlyOptions,
            module="anoaudit.methods.anoonly.method",
            labels="2 or more known anomalies (--labels 1)",
            when="a few anomalies are marked, and more of their kinds are to be found among the rest",
            known_normals=False,
        ),
        Method(
            name="coft",
            title="Contrastive fine-tuning",
            paper="Liao et al., COFT-AD: COntrastive Fine-Tuning for Few-Shot Anomaly Detection, IEEE TIP 2024 (arXiv 2402.18998)",
            summary="For 1 to 50 images known to be normal, in a folder of their own or labelled 0 with --train-on normal: what a "
            "pretrained network sees in them; it is fine-tuned only where negatives= says what anomalies look like.",
            options=CoftOptions,
            module="anoaudit.methods.coft.method",
            data="images",
            labels="1 to 50 normals (the folder, or --labels 0)",
            when="a handful of good pictures is all there is",
            few_shot=True,
        ),
    )
}


def find_method(name: str) -> Method:
    """Raises UsageError with a suggestion for an unknown name."""
    if name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(name, METHODS, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"there is no method {name!r}", f"{guess}methods are {', '.join(METHODS)}")
