"""Networks and their weights: architectures, model archives, the bundled segmenter.

No training loop, no images' files.
"""
