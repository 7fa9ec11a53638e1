"""What an experiment measured: tables, cells, labels, series; the ground floor of every room."""
