"""Object stores, as a table of providers."""
