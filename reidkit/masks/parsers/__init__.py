"""Human parsers that reidkit runs itself."""
