"""`whimbrel demo`: a box in a temporary folder that is told a real story, to be looked at."""
