"""Prepare a cohort: decode, letterbox, segment, enhance, pack, in one pass.

How one image is computed is in `imaging/`.
"""
