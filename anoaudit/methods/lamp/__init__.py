"""LAMP: reconstruction-based detection with an amplified training loss (Park et al., ICASSP 2024, arXiv 2308.14595)."""
