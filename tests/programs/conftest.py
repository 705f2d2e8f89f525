"""Keep pytest from importing the programs: they change the process that they run in."""

collect_ignore_glob = ["*.py"]
