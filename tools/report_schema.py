"""Write the JSON schema of report.json, which the package publishes, from the report's own records.

python tools/report_schema.py
"""

from pathlib import Path

import penumo_assets.metrics.report
from penumo_assets.metrics.report.content import SCHEMA_NAME, schema_text

TARGET = Path(penumo_assets.metrics.report.__file__).with_name(SCHEMA_NAME)

if __name__ == "__main__":
    TARGET.write_text(schema_text(), encoding="utf-8")
    print(TARGET)
