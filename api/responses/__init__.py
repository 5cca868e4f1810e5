"""Parts of a response: JSON of records, pages, content negotiation, HTML. Imported by `records/` and all above."""
