"""Functions that change the archive's table, a module for each kind of change.

Imported by `coordination/` and all higher layers.
"""
