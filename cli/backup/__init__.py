"""Backups of a running box: Redis and archive at one common moment, their verification and restore.

    <DIR>/<UTC time>/manifest.json       what is in it, and a checksum of each file (manifest.py)
    <DIR>/<UTC time>/archive/            a Delta table that stands on its own
    <DIR>/<UTC time>/redis/dump.rdb      all that Redis held
    <DIR>/<UTC time>.part/               being made, or broken off
    <DIR>/<UTC time>.gone/               being removed, or broken off while it was
    <DIR>/lock                           held by whoever makes or removes one

A backup has its name only once all of it is on disk.
"""
