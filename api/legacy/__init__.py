"""The legacy API: routes and responses of the tracking service that Whimbrel replaces, unchanged for its clients.

Field rules and their messages are in telemetry/codec/legacy_fields.py. Storage and snapshots are shared with all other
routes.

    routes.py             routes that need no archive: the post, and the latest record of a device
    list_routes.py        lists of records
    swagger.py            pages with the API's description, openapi.json
    wire/responses.py     headers, methods, redirects, content negotiation between JSON and HTML
    wire/request_body.py  JSON and forms
    wire/serializers.py   a record as an object of each of the two record sets
    wire/date_parser.py   free-form dates
    wire/page_links.py    `next` and `previous`
    paging/               pages by number over one snapshot
"""
