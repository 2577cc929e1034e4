"""The analysis of section 5, and the dynamics of recurrent nets."""
