"""``penumo``: what Dagster's own command line does not do."""

from pathlib import Path

import click

from penumo_assets.cli.cohorts import COMMANDS


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--demo", is_flag=True, help="Work in the demo's root and Dagster instance instead of yours.")
@click.pass_context
def main(context: click.Context, demo: bool) -> None:
    """Chest X-rays to a pneumonia classifier: land cohorts, run the demo, predict files. The rest is Dagster's."""
    if demo:
        from penumo_assets.cli.environment import use_demo

        context.obj = use_demo()


def run() -> None:
    """The program `penumo`: the command line, with the settings of `.env`."""
    from penumo_assets.cli.environment import load_env_file

    load_env_file()
    main()


for command in COMMANDS:
    main.add_command(command)


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the results.")
def segment(folder: Path, out: Path) -> None:
    """Segment the lungs of every image in FOLDER: masks in original pixels, overlays, and segment.csv."""
    from penumo_assets.cli.segment_folder import segment_folder

    counts = segment_folder(folder, out, progress=True)
    click.echo(", ".join(f"{status}: {count}" for status, count in counts.items()))


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="PATH…", type=click.Path(path_type=Path))
@click.option("--overlay", type=click.Path(file_okay=False, path_type=Path), help="Folder for Grad-CAM pictures.")
@click.option("--model", default="champion", show_default=True, help="champion, previous, or a version number.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def predict(files: tuple[Path, ...], overlay: Path | None, model: str, as_json: bool) -> None:
    """Classify DICOM, PNG or JPEG files (or NPZ tensors), and all in folders, with the champion. Not a medical device.

    Exit status: 0 if every file got an answer, 1 if there is no such model, 3 if some file could not be used.
    """
    import json

    from penumo_assets.cli.predict_files import DISCLAIMER, as_text, films, load_endpoint, predict_files
    from penumo_assets.promotion import NoChampion
    from penumo_assets.resources.profile import root_store
    from penumo_assets.resources.storage.object_store import StorageError

    try:
        endpoint = load_endpoint(root_store(), model)
    except (NoChampion, StorageError) as error:
        raise click.ClickException(str(error)) from error
    found, refused = list(films(files)), 0
    if not found:
        raise click.ClickException("no images there")
    for item in predict_files(endpoint, found, overlay):
        refused += item.answer is None
        click.echo(json.dumps(item.as_dict()) if as_json else as_text(item))
    if not as_json:
        if endpoint.origin.get("phantoms"):
            click.echo("The model was trained on PHANTOMS: its answers mean nothing for a patient.")
        click.secho(DISCLAIMER, bold=True)
    if refused:
        raise SystemExit(3)


@main.command()
@click.option("--to", "version", help="A version number; by default the champion before this one.")
@click.option("--reason", default="", help="Kept with the version that is left.")
def rollback(version: str | None, reason: str) -> None:
    """Make the previous champion the champion again: in MLflow's registry, for every prediction, at the endpoint."""
    from penumo_assets.models.errors import ModelError
    from penumo_assets.promotion import NoChampion, rollback
    from penumo_assets.records import EndpointRecord
    from penumo_assets.resources.endpoints import EndpointError
    from penumo_assets.resources.profile import profile_resources
    from penumo_assets.resources.storage.object_store import StorageError
    from penumo_assets.serving.champion import serve_champion

    resources = profile_resources()
    store, packages = resources["storage"].store, resources["packages"]
    try:
        record, left = rollback(store, resources["tracking"], packages, version, reason)
    except (NoChampion, StorageError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"champion: version {record.version} ({record.architecture}); previous: version {left}, withdrawn")
    if EndpointRecord.find(store) is None:
        return
    try:
        served, _ = serve_champion(store, packages, resources["endpoints"], None, click.echo)
    except (EndpointError, StorageError, ModelError) as error:
        remedy = "Materialize endpoint, not this command again: the champion has been rolled back"
        raise click.ClickException(f"the endpoint has not followed: {error}. {remedy}") from error
    click.echo(f"endpoint: version {served.variant.version} is in service")


@main.command()
@click.option("--patients", default=120, show_default=True, help="Patients per phantom cohort.")
@click.option("--epochs", default=8, show_default=True, help="Most epochs of training per architecture.")
@click.option("--gates/--no-gates", default=True, show_default=True, help="Ask the models for quality gates.")
@click.pass_context
def demo(context: click.Context, patients: int, epochs: int, gates: bool) -> None:
    """Run the whole pipeline on two cohorts of phantoms: no account, no network, no patient.

    With fewer patients or epochs the models are too weak for the gates: add --no-gates. PENUMO_LOG=debug shows
    Dagster's log and the libraries' warnings as well.
    """
    from penumo_assets.cli.environment import use_demo

    folder = context.obj or use_demo()
    from penumo_assets.cli.demo import run_demo

    run_demo(folder, patients=patients, epochs=epochs, gates=gates)


@main.command()
@click.argument("assets")
@click.option("--partition", help="The cohort or the architecture.")
@click.option(
    "--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Run config, YAML or JSON."
)
@click.option("--config-json", help="Run config as JSON.")
def launch(assets: str, partition: str | None, config: Path | None, config_json: str | None) -> None:
    """Materialize ASSETS (names, or a selection such as group:imaging) and say what became of them.

    Does what `dg launch --assets` does, and prints counts, reasons and verdicts. Exit status 1 if the run failed.
    PENUMO_LOG=debug shows Dagster's whole log.
    """
    from penumo_assets.cli.launch import launch

    if not launch(assets, partition, config, config_json):
        raise SystemExit(1)


@main.command()
@click.option("--write", is_flag=True, help="First write the lines that .env of the checkout lacks.")
def env(write: bool) -> None:
    """Show the settings in force, and where they come from."""
    from penumo_assets.cli.environment import complete_env_file, load_env_file, settings
    from penumo_assets.instance import dagster_home

    if write:
        complete_env_file()
        load_env_file()
        dagster_home()
    for name, value in settings().items():
        click.echo(f"{name:<16} {value}")


@main.command()
@click.option("--port", default=3000, show_default=True, help="Port on 127.0.0.1.")
def dev(port: int) -> None:
    """Open Dagster's UI with its daemon: runs, assets, pictures, checks, sensors."""
    from penumo_assets.cli.servers import open_dagster

    open_dagster(port)


@main.command()
@click.option("--port", default=3001, show_default=True, help="Port to listen on.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--beside", is_flag=True, help="End with the program that started this one, and keep silent.")
def reports(port: int, host: str, beside: bool) -> None:
    """Serve the evaluation reports, and nothing else, so that links on asset pages open them. `penumo dev` does so too.

    There is no login: for others than this machine's users, put a proxy with one before it and name its address in
    PENUMO_REPORTS_URL.
    """
    from penumo_assets.cli.reports import serve_reports
    from penumo_assets.resources.profile import profile_resources

    try:
        serve_reports(profile_resources()["storage"].store, port, host, with_parent=beside)
    except KeyboardInterrupt:
        return
    except OSError as error:
        if not beside:  # beside `penumo dev`, another one serves there already
            raise click.ClickException(f"port {port} cannot be had: {error.strerror}") from error


@main.command()
@click.option("--port", default=5000, show_default=True, help="Port on 127.0.0.1.")
def mlflow(port: int) -> None:
    """Open MLflow's UI: trainings with their curves, and the model registry."""
    from penumo_assets.cli.servers import open_mlflow

    open_mlflow(port)


if __name__ == "__main__":
    run()
