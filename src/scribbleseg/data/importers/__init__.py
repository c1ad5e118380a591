"""The importers of public data sets, by name."""

from ... import config
from .acdc import import_acdc
from .mscmr import import_mscmr
from .nci_isbi import import_nci_isbi
from .wsl4mis import import_wsl4mis

IMPORTERS = {"acdc": import_acdc, "wsl4mis": import_wsl4mis, "mscmr": import_mscmr, "nci-isbi": import_nci_isbi}


def import_dataset(settings: config.Import) -> None:
    """Convert a public data set to the nnU-Net raw layout.

    Raises InputError if `src` does not have the files of the source, and if `dst` exists already.
    """
    IMPORTERS[settings.source](settings.src, settings.dst)
