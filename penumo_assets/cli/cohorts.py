"""The commands that are about a cohort: land it, keep its settings, ask what became of its files."""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penumo_assets.cohort.errors import LandingError

if TYPE_CHECKING:
    from penumo_assets.cohort.lookup import Film
    from penumo_assets.cohort.settings import NewSettings
    from penumo_assets.records import RetiredRecord
    from penumo_assets.resources.storage.object_store import ObjectStore

# Their names alone: what reads them takes a moment to import. A test holds them to `cohort.layouts`.
_LAYOUTS = (
    *("kermany", "nih", "rsna", "chexpert", "chexpert-plus", "mimic-cxr-jpg", "padchest", "vindr", "cohen"),
    *("shenzhen", "montgomery", "folders", "csv"),
)

_YES = click.option("--yes", is_flag=True, help="Do not ask.")


@contextmanager
def _refusals() -> Iterator[None]:
    """What is refused, as one sentence and exit status 1."""
    from penumo_assets.jobs.contract import JobError
    from penumo_assets.resources.storage.object_store import StorageError

    try:
        yield
    except (LandingError, StorageError, JobError) as error:
        raise click.ClickException(str(error)) from error


def _store() -> "ObjectStore":
    from penumo_assets.resources.profile import root_store

    return root_store()


def _agreed(question: str) -> bool:
    """Whether a person at the terminal says yes."""
    try:
        return click.confirm(question)
    except click.Abort:  # nobody is there
        click.echo()
        return False


def _checked_settings(cohort: str, file: Path, yes: bool) -> "NewSettings":
    """A cohort's new settings; those that it has are not replaced without a question."""
    from penumo_assets.cohort.retire import refuse_retired
    from penumo_assets.cohort.settings import MAX_BYTES, check_settings

    with file.open("rb") as opened:
        new = check_settings(_store(), cohort, opened.read(MAX_BYTES + 1), file.name)
    refuse_retired(_store(), cohort)
    for change in new.changes:
        click.echo(f"  {change}")
    asks = new.version is not None and new.changes and not yes
    if asks and not _agreed(f"Replace the settings of {cohort} so?"):
        raise click.ClickException("nothing was changed: agree, or add --yes")
    return new


@click.command()
@click.argument("cohort")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--layout", type=click.Choice(_LAYOUTS), help="Read a public data set, or yours, by its own tables.")
@click.option("--official-split", is_flag=True, help="Keep the data set's own division into training and test.")
@click.option("--labelled-only", is_flag=True, help="Leave out films that are neither normal nor pneumonia.")
@click.option(
    "--uncertain",
    type=click.Choice(["u-ignore", "u-zeros", "u-ones"]),
    default="u-ignore",
    show_default=True,
    help="What an uncertain label of CheXpert's kind counts as: no label, absent, or present.",
)
@click.option("--patient", default="", help="For folders: a regular expression that finds the patient in a path.")
@click.option("--table", default="", help="For csv: the table's file name.")
@click.option("--map", "maps", multiple=True, help="For csv and folders: patient_id=THEIRS, label:THEIRS=pneumonia.")
@click.option(
    "--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Settings, as `penumo settings` has."
)
@_YES
def land(
    cohort: str,
    folder: Path,
    layout: str | None,
    official_split: bool,
    config: Path | None,
    yes: bool,
    **options: Any,
) -> None:
    """Copy FOLDER (images, optional labels.csv and masks/) into landing as COHORT and register the partition."""
    from penumo_assets.cli.environment import program, settings
    from penumo_assets.cli.land import about, land_cohort

    with _refusals():
        kept = _checked_settings(cohort, config, yes) if config else None
        landed = land_cohort(cohort, folder, layout, official_split=official_split, settings=kept, **options)
    for name in landed.left_out:
        click.echo(f"Left out, as no plain file or by its name: {name}", err=True)
    known = settings()
    click.echo(f"Landed {landed.files} files as cohort {cohort}.")
    for line in (*landed.census.lines(), *(about(layout, official_split) if layout else ())):
        click.echo(line)
    click.echo(f"  root: {known['PENUMO_ROOT']}; Dagster's instance: {known['DAGSTER_HOME']} ({known['read from']})")
    click.echo("Prepare it with:")
    click.echo(f"  {program('penumo')} launch 'group:imaging' --partition {cohort}")


def _formats(command: Any) -> Any:
    """The options of a command that lists films."""
    command = click.option("--csv", "as_csv", is_flag=True, help="A table with a header, as CSV.")(command)
    return click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")(command)


def _list_films(films: "Sequence[Film]", columns: tuple[str, ...], as_csv: bool, as_json: bool) -> None:
    from penumo_assets.jobs.csv_cells import plain_cell
    from penumo_assets.resources.storage.object_store import printable

    rows = [{name: getattr(film, name) for name in columns} for film in films]
    if as_csv:
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: plain_cell(printable(text)) for name, text in row.items()} for row in rows)
        return
    for row in rows:
        click.echo(json.dumps(row) if as_json else "\t".join(map(printable, row.values())))


@click.command()
@click.argument("cohort")
@_formats
def rejected(cohort: str, as_csv: bool, as_json: bool) -> None:
    """List the rejected files of COHORT by the names they landed under, which no other output holds.

    What a terminal would obey or cannot show stands as its escape, such as \\x1b.

    Needs read access to landing, and the PENUMO_DEID_KEY that the cohort was prepared with.
    """
    from penumo_assets.cohort.lookup import rejected_files
    from penumo_assets.jobs.prepare.work import key_from_environment

    with _refusals():
        found = rejected_files(_store(), cohort, key_from_environment())
    _list_films(found, ("name", "source", "rejected"), as_csv, as_json)


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@_formats
def lookup(ids: tuple[str, ...], as_csv: bool, as_json: bool) -> None:
    """Find films by any ID: of an image or a patient, the name of a tensor, or the landed file or patient id.

    Tells cohort, landed file, its name outside, image id, patient id, and why it was rejected, if it was. Names are
    written as `penumo rejected` does, and it needs the same. Exit status 1 if an ID is unknown.
    """
    from penumo_assets.cohort.lookup import lookup as look_up
    from penumo_assets.jobs.prepare.work import KEY_VARIABLE, key_from_environment
    from penumo_assets.resources.storage.object_store import printable

    with _refusals():
        found = look_up(_store(), ids, key_from_environment())
    columns = ("cohort", "name", "source", "image_id", "patient_id", "rejected")
    _list_films(found.films, columns, as_csv, as_json)
    if found.unknown:
        other = f"; with another {KEY_VARIABLE} than the present one: {', '.join(found.unsearched)}"
        raise click.ClickException(
            f"no film is known by {', '.join(map(printable, found.unknown))}" + (other if found.unsearched else "")
        )


@click.command()
@click.argument("cohort")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_YES
def settings(cohort: str, file: Path | None, yes: bool) -> None:
    """Show how COHORT is prepared, and where that is said; or keep the settings in FILE for it from now on.

    FILE is YAML with the names of configs/prepare_config.yaml; what it leaves out has the default, so an empty file
    goes back to that. Launches, sensors and backfills use them, and a launch may set something else for once.
    """
    from penumo_assets.cohort.publish import open_manifest
    from penumo_assets.cohort.settings import settings_in_force

    with _refusals():
        if file:
            _checked_settings(cohort, file, yes).write(_store())
        found = settings_in_force(_store(), cohort)
        before = open_manifest(_store(), cohort).head.settings
    click.echo(f"# {cohort}: {found.described(before)}")
    if not file:
        click.echo(found.as_yaml(), nl=False)


@click.command()
@click.argument("cohort")
@click.option("--reason", default="", help="Why, without naming a patient: kept in retired/COHORT.json.")
@click.option("--erase", is_flag=True, help="Also remove its objects below the root, counted and after a question.")
@click.option("--undo", is_flag=True, help="Bring it back. What was erased can be prepared again from landing.")
@_YES
def retire(cohort: str, reason: str, erase: bool, undo: bool, yes: bool) -> None:
    """Take COHORT out of every training set, sensor and list of partitions for good.

    Its name cannot be landed, prepared or trained on again until --undo. What landed is never erased without a question
    of its own, which --yes does not answer.
    """
    from penumo_assets.cohort import retire as retiring
    from penumo_assets.instance import open_instance

    if undo and (erase or reason):
        raise click.UsageError("--undo goes alone")
    with _refusals(), open_instance() as instance:
        if undo:
            retiring.bring_back(_store(), instance, cohort)
            click.echo(f"{cohort} is in use again; launch it to bring it up to date.")
            return
        record = retiring.retire(_store(), instance, cohort, reason)
        click.echo(f"{cohort} is retired, since {record.at} by {record.by}: {record.reason}")
        if erase:
            _erase(cohort, record, yes)
        click.echo("Training sets, models and reports that were made with it stay: see Retire in docs/operations.md.")


def _erase(cohort: str, record: "RetiredRecord", yes: bool) -> None:
    """Remove a retired cohort's objects; those that landed only if a person says so."""
    from penumo_assets.cohort import retire as retiring

    found = {folder: len(keys) for folder, keys in retiring.objects_of(_store(), cohort).items() if keys}
    landed = found.pop("landing", 0)
    counts = ", ".join(f"{folder} {number}" for folder, number in found.items())
    if not yes and not _agreed(f"Remove {sum(found.values())} objects of {cohort} ({counts or 'none'})?"):
        raise click.ClickException("nothing was erased: agree, or add --yes")
    folders = set(found)
    if landed and not yes and _agreed(f"Also the {landed} objects that landed, landing/{cohort}/?"):
        folders.add("landing")
    record = retiring.erase(_store(), cohort, record, folders)
    click.echo(f"erased: {', '.join(f'{folder} {number}' for folder, number in record.erased.items()) or 'nothing'}")
    if landed and "landing" not in folders:
        click.echo(f"landing/{cohort}/ stays: {landed} objects")


COMMANDS = (land, lookup, rejected, retire, settings)
