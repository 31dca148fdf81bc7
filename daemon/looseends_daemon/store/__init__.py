"""The only place with SQL: one writer, many readers, facts folded in one transaction."""
