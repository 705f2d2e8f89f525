"""What speaks against two records: a module for each kind of reason, which the rule `integrity` takes together.

Each function takes a comparison and yields a Reason for each thing that it finds. A further one is a function here and
its line in ``REASONS`` of :mod:`emacheck.judge.rules.integrity`.
"""
