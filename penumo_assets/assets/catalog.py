"""Names that several assets share: groups, owners, pools, and where the current version of a product is recorded."""

OWNERS = ["team:radiology-ml"]

INGEST = "ingest"
SEGMENTATION = "segmentation"
IMAGING = "imaging"
LEARNING = "learning"
SERVING = "serving"

# Pools limit how many jobs run side by side; the limits stand in dagster.yaml.
PROCESSING_POOL = "sagemaker_processing"
TRAINING_POOL = "sagemaker_training"

TRAINING_SET_RECORD = "training_set/current.json"
SEGMENTER_RECORD = "models/lung_segmenter/current.json"


def model_record(architecture: str) -> str:
    return f"models/{architecture}/current.json"


def search_record(architecture: str) -> str:
    return f"models/{architecture}/search.json"


def report_record(architecture: str) -> str:
    return f"reports/{architecture}/current.json"


def predictions_record(cohort: str) -> str:
    return f"predictions/{cohort}/current.json"
