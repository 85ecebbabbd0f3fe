"""How the assets are partitioned: by patient cohort, and by network architecture."""

from dagster import DynamicPartitionsDefinition, StaticPartitionsDefinition

from penumo_assets.configs.train import Architecture

# Cohorts come and go while the application runs: `penumo land` and the sensors add them.
cohorts = DynamicPartitionsDefinition(name="cohort")

architectures = StaticPartitionsDefinition([architecture.value for architecture in Architecture])
