"""Every error and warning that geocd raises on purpose.

Each error is also a builtin, so that code which knows nothing of geocd can
catch it. A message says what differs, what was found, and what to try.

    GeocdError
    ├── ConfigError (ValueError)            an impossible setting
    ├── InputError (ValueError)             an input that cannot be used
    │   ├── RasterOpenError                 missing, damaged or not a raster
    │   ├── CrsMismatchError                a CRS on one side only
    │   ├── NoOverlapError                  the two images share no ground
    │   ├── BandError                       band choice or band counts do not fit
    │   └── NothingObservedError            no pixel is valid on both dates
    ├── NotAlignedError (ValueError)        alignment was asked for and cannot be proven
    ├── OperatingPointError (ValueError)    an operating point that does not hold
    ├── OutputError (OSError)               an output that cannot be written
    │   └── OutputExistsError               there already, and overwrite was not asked for
    ├── WeightsError (ValueError)           weights that cannot be used
    │   ├── UnknownWeightsError             no weights of that name
    │   ├── DamagedWeightsError             the file does not hold what its card says
    │   └── PickleRefusedError              reading it would execute code
    ├── BackendError (RuntimeError)         what should run the network cannot
    │   └── DeviceMemoryError               not even one window pair fits its memory
    ├── UnknownModelError (KeyError)        no architecture of that name
    ├── DivergedError (ArithmeticError)     training ran into numbers that are none
    ├── ShapeError (ValueError)             arrays that do not fit each other
    └── DatasetError (ValueError)           a folder of samples that cannot be used
        └── DamagedSampleError              one of its files is missing or damaged
    GeocdWarning (UserWarning)
"""

from __future__ import annotations


class GeocdError(Exception):
    """Root of everything that geocd raises on purpose."""


class GeocdWarning(UserWarning):
    """Something that the user should know, and that does not stop the run."""


class ConfigError(GeocdError, ValueError):
    """A setting has an impossible value."""


class InputError(GeocdError, ValueError):
    """An input cannot be used as it is."""


class RasterOpenError(InputError):
    """A raster is missing, damaged or no raster at all."""


class CrsMismatchError(InputError):
    """One image has a coordinate reference system and the other has none."""


class NoOverlapError(InputError):
    """The two images, or the area of interest, share no ground."""


class BandError(InputError):
    """The bands asked for, or the number of bands, do not fit."""


class NothingObservedError(InputError):
    """No pixel is valid on both dates."""


class NotAlignedError(GeocdError, ValueError):
    """An alignment was required, and no motion could be shown to help."""


class OperatingPointError(GeocdError, ValueError):
    """An operating point was made for other weights or settings, or none can be made."""


class OutputError(GeocdError, OSError):
    """An output cannot be written."""


class OutputExistsError(OutputError):
    """An output exists and overwriting was not asked for."""


class WeightsError(GeocdError, ValueError):
    """Weights cannot be used."""


class UnknownWeightsError(WeightsError):
    """There are no weights of that name."""


class DamagedWeightsError(WeightsError):
    """A weights file does not hold what its card says."""


class PickleRefusedError(WeightsError):
    """Reading the checkpoint would execute code, so it was not read."""


class BackendError(GeocdError, RuntimeError):
    """What should run the network cannot be used."""


class DeviceMemoryError(BackendError):
    """Not even one window pair fits the memory of the device."""


class UnknownModelError(GeocdError, KeyError):
    """There is no architecture of that name."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument; a message is meant to be read.
        return str(self.args[0]) if self.args else ""


class DivergedError(GeocdError, ArithmeticError):
    """Training ran into losses or gradients that are no finite numbers."""


class ShapeError(GeocdError, ValueError):
    """Arrays differ in shape where they must not."""


class DatasetError(GeocdError, ValueError):
    """A folder of samples cannot be used."""


class DamagedSampleError(DatasetError):
    """A file of a sample is missing or damaged; the others may be sound."""
