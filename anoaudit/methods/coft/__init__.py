"""COFT-AD: a pretrained network, fine-tuned contrastively on a few normal images (METHODS §3)."""
