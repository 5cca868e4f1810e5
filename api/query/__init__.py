"""The query program: answers questions to the archive, and about the whole box.

Imported by no other folder.
"""
