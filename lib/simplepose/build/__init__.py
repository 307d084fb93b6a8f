"""Builds objects from a configuration: apart from commands/, the only package that sees one."""
