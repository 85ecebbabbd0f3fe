"""Answer with a trained classifier: a cohort's tensors, one file, or an endpoint's request, all by the same code."""
