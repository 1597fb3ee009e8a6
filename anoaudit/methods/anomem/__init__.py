"""AnoMem: multi-scale contrasted memory (Jezequel et al., arXiv 2211.09041), after the published idea with documented choices."""
