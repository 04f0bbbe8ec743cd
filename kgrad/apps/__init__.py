"""The programs: the command line, the report and the app."""
