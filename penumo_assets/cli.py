"""``penumo``: what Dagster's own command line does not do."""

from pathlib import Path

import click

from penumo_assets.cohort.landing import LandingError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Chest X-rays to a pneumonia classifier: land cohorts, run the demo, segment a folder. The rest is Dagster's."""


@main.command()
@click.argument("cohort")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def land(cohort: str, folder: Path) -> None:
    """Copy FOLDER (images, optional labels.csv and masks/) into landing as COHORT and register the partition."""
    from penumo_assets.cohort.land import land_folder
    from penumo_assets.instance import open_instance
    from penumo_assets.resources.profile import storage_root
    from penumo_assets.resources.storage import StorageError, open_store

    try:
        with open_instance() as instance:
            count = land_folder(open_store(storage_root()), instance, cohort, folder, progress=True)
    except (LandingError, StorageError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Landed {count} files as cohort {cohort}. Prepare it with:")
    click.echo(f"  dg launch --assets 'group:imaging' --partition {cohort}")


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the results.")
def segment(folder: Path, out: Path) -> None:
    """Segment the lungs of every image in FOLDER: masks in original pixels, overlays, and segment.csv."""
    from penumo_assets.segment_folder import segment_folder

    counts = segment_folder(folder, out, progress=True)
    click.echo(", ".join(f"{status}: {count}" for status, count in counts.items()))


@main.command()
@click.option("--patients", default=60, show_default=True, help="Patients per phantom cohort.")
@click.option("--epochs", default=4, show_default=True, help="Most epochs of training per architecture.")
def demo(patients: int, epochs: int) -> None:
    """Run the whole pipeline on two cohorts of phantoms: no account, no network, no patient."""
    from penumo_assets.demo import run_demo

    run_demo(patients=patients, epochs=epochs)


if __name__ == "__main__":
    main()
