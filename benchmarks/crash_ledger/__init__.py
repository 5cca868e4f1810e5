"""The crash ledger: what was acknowledged while everything was killed, held against what is stored.

schedule.py    which program or step is killed or stopped, and when: a pure function of seed and seconds
faults.py      carries it out; failpoints.py: what is done to a program at a named step of saving or compacting
poison.py      what no save can read: quarantined and replayed
senders.py     what is sent, and when it counts as acknowledged; http_sender.py, tcp_senders.py: the ways
ledger.py      every record that was sent, and all that is found wrong
reader_limits.py     pages through ranges, and holds every set of pages against the ledger
readback.py    all records at the end, read three ways

Nothing here uses the product's own code to judge it: answers, files and pages are read by other means.
"""
