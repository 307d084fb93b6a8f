"""Objects of a configuration: beside commands, the only place that sees one."""
