"""The hot store in Redis: a stream and the latest record of each device, and the functions that change them.

The only folder that knows the keys of shards. Imported by `archive/` and all higher layers.
"""
