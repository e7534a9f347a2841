"""Texts in files of any size: read row by row, answered, written in their order, resumed after a kill."""
