"""CLPLoss: contrastive perceptual loss for image super-resolution, at home in BasicSR.

Importing this package is cheap and never imports BasicSR. It leaves word with Python's import
system, so that `import basicsr`, whenever it comes, works on a current torchvision and finds
`CLPLoss` in its LOSS_REGISTRY. `register()` does the same at once and says what is in the way.
"""

from clp_basicsr.extractors import build_extractor
from clp_basicsr.hosts.basicsr import install, register
from clp_basicsr.loss import CLPLoss

__version__ = "0.1.0"
__all__ = ["CLPLoss", "__version__", "build_extractor", "register"]

install()
