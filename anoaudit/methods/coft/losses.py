"""The three terms of COFT-AD's loss (Liao et al., IEEE TIP 2024), on unit vectors z. METHODS §3 says which forms are ours.

L = L_con + λ_PP·L_PP + λ_NP·L_NP [paper]. `owner_N` says which image a view is of: views of one image are never negatives.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

MARGIN = 0.0  # of the hinge, on the cosine: a negative at a right angle is far enough (our choice)


def contrastive(z_NE: Tensor, owner_N: Tensor, temperature: float) -> Tensor:
    """L_con, NT-Xent over views (Chen et al., ICML 2020; default ours): each pair of views of one image against the others.

    Mean over ordered pairs (i, j), i ≠ j, of one image of −ln[p / (p + Σ_{k of other images} e^{z_i·z_k/τ})], p = e^{z_i·z_j/τ}.
    With one image there is no other to tell it from: zero.
    """
    cosine_NN = (z_NE @ z_NE.T) / temperature
    same_NN = owner_N[:, None] == owner_N
    # −inf would give NaN gradients where there is no other image; this is as good as nothing at |z·z|/τ ≤ 1000.
    others_N1 = cosine_NN.masked_fill(same_NN, -1e4).logsumexp(dim=1, keepdim=True)
    loss_NN = torch.logaddexp(cosine_NN, others_N1) - cosine_NN
    pairs_NN = same_NN & ~torch.eye(len(z_NE), dtype=torch.bool, device=z_NE.device)
    return loss_NN[pairs_NN].sum() / pairs_NN.sum().clamp_min(1)


def cross_instance(z_NE: Tensor, owner_N: Tensor) -> Tensor:
    """L_PP: the normals are of one kind, so views of different images are positives too [paper].

    Mean over i ≠ j of different images of 1 − z_i·z_j (form ours); of one image zero. Alone it makes all z one.
    """
    other_NN = owner_N[:, None] != owner_N
    return (1 - z_NE @ z_NE.T)[other_NN].sum() / other_NN.sum().clamp_min(1)


def repelled(z_NE: Tensor, negative_ME: Tensor, temperature: float, form: Literal["softplus", "hinge"]) -> Tensor:
    """L_NP: normals are pushed from synthesised negatives [paper]; mean over all pairs.

    softplus(z_i·n_j/τ), or hinge max(0, z_i·n_j − MARGIN) (forms ours).
    """
    cosine_NM = z_NE @ negative_ME.T
    if form == "hinge":
        return (cosine_NM - MARGIN).clamp_min(0).mean()
    return F.softplus(cosine_NM / temperature).mean()
