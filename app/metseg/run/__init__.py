"""The way of a case, a folder of cases along it, and the record of what became of each."""
