"""Parts of a TCP connection: admission of messages, replies, pacing of reads, time limits, closing.

Imported by `listeners/`.
"""
