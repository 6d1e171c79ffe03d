"""Self-contained HTML pages from results: no script of others, no network, light and dark."""
