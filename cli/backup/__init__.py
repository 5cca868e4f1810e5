"""Backups of a running box: Redis and archive at one common moment, their verification and restore.

    <DIR>/<UTC time>/manifest.json       contents, and a checksum of each file (manifest.py)
    <DIR>/<UTC time>/archive/            a complete Delta table
    <DIR>/<UTC time>/redis/dump.rdb      all data of Redis
    <DIR>/<UTC time>.part/               in progress, or interrupted
    <DIR>/<UTC time>.gone/               being deleted, or interrupted during deletion
    <DIR>/lock                           held by the process that makes or deletes a backup

A backup has its name only once all of it is on disk.
"""
