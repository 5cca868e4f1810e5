"""The legacy API: routes and responses of the tracking service that Whimbrel replaces, unchanged for its clients.

Field rules and sentences are in telemetry/codec/legacy_fields.py; storage and snapshots are those of every other route.

    routes.py     its addresses and what each answers
    responses.py    headers, methods, redirects, and JSON or HTML by what the client accepts
    request_body.py     JSON and forms as it read them
    serializers.py    a record as each of its two sets shows it
    date_parser.py      free-form dates
    page_links.py      `next` and `previous`
    pages.py      pages by number over one snapshot: rank_search.py the arithmetic, file_index.py what is known of files
    swagger.py  the pages that describe all this, and openapi.json, which they show
"""
