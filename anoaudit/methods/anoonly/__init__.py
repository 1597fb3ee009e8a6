"""AnoOnly (Zhou et al. 2023): few known anomalies, no loss on normal data. Read `supervision` and one of the bases first."""
