"""What is wrong with a cohort as a whole."""


class LandingError(ValueError):
    """A cohort that cannot be read as landed; the message names the cohort and the remedy."""
