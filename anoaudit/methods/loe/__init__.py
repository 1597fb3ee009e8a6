"""LOE: Latent Outlier Exposure (Qiu et al., ICML 2022, arXiv 2202.08088)."""
