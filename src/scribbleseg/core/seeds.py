"""The seeds that every generator of random numbers here takes."""

from .errors import InputError

HIGHEST = 2**32 - 1


def check_seed(seed: int) -> None:
    """Raises InputError for a seed that is not from 0 to 2³² − 1."""
    if not 0 <= seed <= HIGHEST:
        raise InputError(f"--seed {seed}: expected a whole number from 0 to {HIGHEST}.")
