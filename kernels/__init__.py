"""Triton kernels, installed as ``metaindex.kernels``. Only ``metaindex.scoring.triton`` imports them.

A top-level import package of this name belongs to another project, so the folder is mapped into metaindex at build time.
"""
