"""The search over recipes: what it tries, what it keeps, and the report that it writes."""
