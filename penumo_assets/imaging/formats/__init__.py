"""Everything that reads untrusted bytes: a module for each file format, and what formats share.

What is done to an image after it is decoded belongs one floor up, in `imaging/`.
"""
