"""jobs/train with a tiny network in the place of resnet34, as a program of its own for tests that need processes."""

from penumo_assets.jobs import contract
from penumo_assets.jobs.train import __main__ as train
from penumo_assets_tests.models.tiny import use_tiny_networks

MODULE = "penumo_assets_tests.jobs.tiny_train"

if __name__ == "__main__":
    use_tiny_networks()
    train.MODULE = MODULE
    contract.run_program(train.main)
