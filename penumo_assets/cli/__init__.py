"""The command ``penumo``: what Dagster's own command line does not do.

Each command is a few lines over the packages below.

Logic that an asset, a sensor or a job needs too does not belong here.
"""
