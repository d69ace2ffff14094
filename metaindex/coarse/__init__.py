"""The coarse stage: FAISS proposes documents by one vector each, and the budgets rank what it proposes.

``spec``: what the text of ``coarse=`` means. ``vectors``, ``fde``: one vector for each document and query. ``library``,
``kinds``, ``gpu``: FAISS, and what its indexes can do. ``filled``: an index filled with documents. ``keeper``, ``upkeep``: how
it is kept in step with writes, and when. ``stage``: what serves the searches of one index of ours.
"""
