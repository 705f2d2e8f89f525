"""Hold a candidate's iteration to the arbiter's and to the accepted precision."""
