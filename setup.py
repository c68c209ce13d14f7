"""Package metadata. Tool configuration lives in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="tiedbert",
    version="0.1.0",
    description="Tied BERT heads, exact surgery on Keras models, adversarial training",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["tiedbert", "tiedbert.*"]),
    python_requires=">=3.10",
    # bert4keras is not listed: it pins keras<=2.3.1, so no resolver accepts it
    # beside a current TensorFlow. README.md tells how to add it.
    install_requires=[
        "tensorflow>=2.21",
        "tf-keras>=2.21",
        "keras>=3.12",
        "numpy>=1.26",
        "safetensors>=0.4.3",
        "sentencepiece>=0.2",
        "filelock>=3.16",
    ],
    extras_require={
        "demo": ["matplotlib>=3.8", "scikit-learn>=1.4", "snownlp==0.12.3"],
        # A test builds the wheel without a network, hence setuptools; 70.1 is the
        # first that needs no wheel package for it.
        "test": [
            "hypothesis",
            "pydot",
            "pytest>=8",
            "ruff==0.15.*",
            "setuptools>=70.1",
        ],
    },
    classifiers=[
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
