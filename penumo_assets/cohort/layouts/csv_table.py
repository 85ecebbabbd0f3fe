"""Any table: ``--map`` says which of its columns are ours, and which of its labels."""

from collections.abc import Iterator

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.labels import COLUMNS, REQUIRED
from penumo_assets.cohort.layouts.base import Film, Folder, Layout, Options


def read(folder: Folder, options: Options) -> Iterator[Film]:
    table = folder.need(options.table) if options.table else _only(folder)
    column_of = {ours: "_".join(options.columns.get(ours, ours).lower().split()) for ours in COLUMNS}
    labels = {theirs.lower(): ours for theirs, ours in options.labels.items()}
    for row in folder.table(table, *(column_of[ours] for ours in REQUIRED)):
        values = {ours: row.get(theirs, "") for ours, theirs in column_of.items()}
        finding, file = values["label"], values["file"].replace("\\", "/")
        yield Film(
            folder.path(file, table) or folder.image(file.rsplit("/", 1)[-1]),
            patient_id=values["patient_id"],
            label=labels.get(finding.lower(), "" if labels else finding.lower()),
            finding=finding,
            view=values["view"],
            sex=values["sex"],
            age=values["age"],
            split=values["split"],
        )


def _only(folder: Folder) -> str:
    tables = [name for name in folder.names.values() if name.lower().endswith((".csv", ".tsv", ".csv.gz"))]
    if len(tables) != 1:
        raise LandingError(f"the folder holds {len(tables)} tables: say which one by --table")
    return tables[0]


LAYOUT = Layout(
    "csv",
    "a table of your own",
    {"column label": "itself in lower case, or what --map label:THEIRS=OURS says"},
    read,
    "column patient_id, or what --map patient_id=THEIRS says",
    "column split: train, train_val, validation or test",
)
