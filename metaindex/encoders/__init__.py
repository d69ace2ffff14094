"""Encoders: from text to vectors. Each gives ``encode_query(texts)`` and ``encode_document(texts)``."""
