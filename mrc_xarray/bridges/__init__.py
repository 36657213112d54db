"""Bridges to other packages and formats, each imported only when it is used."""
