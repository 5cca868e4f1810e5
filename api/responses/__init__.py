"""What a response is made of: JSON of records, pages, media types, HTML. Imported by `records/` and all above."""
