"""Public data sets, by name."""

from .. import config
from .import_mscmr import import_mscmr
from .import_wsl4mis import import_wsl4mis

IMPORTERS = {"mscmr": import_mscmr, "wsl4mis": import_wsl4mis}


def import_dataset(settings: config.Import) -> None:
    """Bring a public data set into the nnU-Net raw layout. Raises InputError when src is not what its source ships, or dst is taken."""
    IMPORTERS[settings.source](settings.src, settings.dst)
