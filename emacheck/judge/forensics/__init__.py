"""What two records are: paired or not, of one run or not, still or moving, and what of them no rule judges."""
