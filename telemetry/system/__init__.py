"""The machine: clock, disks, files, processes, systemd. Imported by `hot_store/` and all above."""
