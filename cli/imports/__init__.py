"""Files of records from elsewhere, for `whimbrel import`: a file a format, and what they have in common."""
