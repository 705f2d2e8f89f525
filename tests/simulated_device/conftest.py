"""Keep pytest from importing the package: its own process would then have another device."""

collect_ignore = ["package", "programs"]
