"""The evaluation report: its content as typed records, and the page that shows it.

Figures come from the modules above.
"""
