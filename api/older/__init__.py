"""The older tracking service's HTTP side: its addresses, shapes, headers and sentences, for clients that know them.

Field rules and sentences are in telemetry/older.py; storage and snapshots are those of every other route.

    routes.py     its addresses and what each answers
    answers.py    headers, methods, redirects, and JSON or HTML by what the client accepts
    bodies.py     JSON and forms as it read them
    records.py    a record as each of its two sets shows it
    dates.py      free-form dates
    links.py      `next` and `previous`
    pages.py      pages by number over one snapshot: ranks.py the arithmetic, files.py what is known of files
    documents.py  the pages that describe all this, and openapi.json, which they show
"""
