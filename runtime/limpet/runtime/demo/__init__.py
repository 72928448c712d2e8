"""`limpet demo`: from a recording to live alerts, with the commands that a user types.

It trains, exports, verifies, serves and streams by running `limpet` itself in processes of its own:
nothing here imports training or export.
"""
