"""External validation: the metrics of models on bags of another cohort, with intervals, tests and a page."""
