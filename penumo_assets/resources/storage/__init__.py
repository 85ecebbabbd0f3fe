"""Objects below one root, on a folder or on S3, behind one interface (`object_store.py`).

What an object means is not known here.
"""
