"""The collectors: from sockets to the hot store."""
