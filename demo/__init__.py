"""The demonstration model: its written material, the composer, the trainer and the evaluation set. See README.md.

Not part of the installed package: everything here runs from a checkout with the extra `demo-train`.
"""
