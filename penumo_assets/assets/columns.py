"""What the columns of tabular outputs mean, as the asset pages show it."""

from collections.abc import Iterable

from dagster import TableColumn, TableSchema

TRAINING_INDEX = TableSchema(
    columns=[
        TableColumn("shard", "int", "Number of the shard file that holds the image."),
        TableColumn("row", "int", "Position of the image in its shard."),
        TableColumn("image_id", "string", "The image's id, unique in its cohort."),
        TableColumn("patient_id", "string", "Pseudonym of the patient; decides the split."),
        TableColumn("cohort", "string", "The cohort the image landed with."),
        TableColumn("label", "string", "Class by labels.csv."),
        TableColumn("target", "int", "Number of the class: its position in dataset.json."),
        TableColumn("view", "string", "Projection (PA, AP), where known."),
        TableColumn("sex", "string", "Sex by labels.csv or the DICOM header, where known."),
        TableColumn("age", "float", "Age in years, capped at 90, where known."),
        TableColumn("source_width", "float", "Width in pixels of the image as it landed."),
        TableColumn("source_height", "float", "Height in pixels of the image as it landed."),
        TableColumn("source_bytes", "float", "Size in bytes of the file as it landed."),
        TableColumn("mean_intensity", "float", "Mean of the decoded image, 0 (black) to 1 (white)."),
        TableColumn("sha256", "string", "SHA-256 of the tensor's file."),
        TableColumn("file", "string", "The tensor, below npz/."),
        TableColumn("pixel_sha256", "string", "SHA-256 of the tensor's values."),
        TableColumn("perceptual_hash", "int", "64-bit pHash: near-duplicates differ in few bits."),
    ]
)


def prediction_columns(classes: Iterable[str]) -> TableSchema:
    """Columns of predictions.parquet for a model of these classes."""
    names = tuple(classes)
    return TableSchema(
        columns=[
            TableColumn("file", "string", "The tensor, below npz/."),
            TableColumn("image_id", "string", "The image's id, unique in its cohort."),
            TableColumn("patient_id", "string", "Pseudonym of the patient."),
            TableColumn("label", "string", "Class by labels.csv, where it is known."),
            *(TableColumn(f"probability_{name}", "float", f"Softmax probability of {name}.") for name in names),
            *(
                TableColumn(f"calibrated_probability_{name}", "float", f"Probability of {name}, temperature-scaled.")
                for name in names
            ),
            TableColumn("decision", "string", "Class at the threshold; with several classes the most probable one."),
            TableColumn("threshold", "float", "Cut on the positive class's probability, chosen on validation."),
            TableColumn("calibrated_threshold", "float", "The same cut on its calibrated probability."),
            TableColumn("model_version", "string", "Version in MLflow's registry."),
            TableColumn("architecture", "string", "Network of that version."),
            TableColumn("quality_flags", "string", "What is unusual about the image, joined by semicolons."),
        ]
    )
