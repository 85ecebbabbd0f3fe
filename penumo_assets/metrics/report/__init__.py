"""The evaluation report: report.json with a published schema, and report.html for people."""
