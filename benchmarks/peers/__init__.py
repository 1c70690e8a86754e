"""Comparisons with other packages: equal data and threads, every answer certified."""
