"""The operating system: clock, disk space, fsync, permissions, processes, systemd.

Imported by `hot_store/` and all higher layers.
"""
