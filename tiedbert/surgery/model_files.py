"""Models in `.keras` files: read without running what a file brings, written whole."""

import builtins
import importlib
import json
import os
import shutil
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError, reason

# Beginning of the folder in which models are written before they get their names.
_DRAFTS = ".part-"

# Where Keras itself finds classes. tf_keras imports any other module that a file names.
_KNOWN = {"keras", "tf_keras", "builtins", "tiedbert"}
# What zipfile and json say of a file that is something else, cut off or encrypted.
_DAMAGE = (KeyError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile)

# What Keras 2 writes for functions of TensorFlow called on its tensors; a file may name
# any function there is (io.write_file), so only those that compute are let through.
_OPS = {"TFOpLambda", "SlicingOpLambda"}
_NAMESPACES = """
    __operators__ bitwise image linalg math nn quantization ragged signal sparse strings
    keras.activations
"""
_COMPUTE = """
    abs acos acosh add add_n argmax argmin argsort as_string asin asinh atan atan2 atanh
    batch_to_space bitcast boolean_mask broadcast_dynamic_shape broadcast_static_shape
    broadcast_to cast clip_by_norm clip_by_value complex concat constant
    convert_to_tensor cos cosh cumsum debugging.check_numerics divide dynamic_partition
    dynamic_stitch einsum ensure_shape equal exp expand_dims eye fftnd fill floor
    floor_div gather gather_nd greater greater_equal histogram_fixed_width
    histogram_fixed_width_bins identity identity_n ifftnd irfftnd less less_equal
    linspace logical_and logical_not logical_or matmul maximum meshgrid minimum multiply
    negative norm not_equal one_hot ones ones_like pad pow random.categorical
    random.normal random.shuffle random.stateless_normal random.stateless_uniform
    random.truncated_normal random.uniform range rank realdiv reduce_all reduce_any
    reduce_logsumexp reduce_max reduce_mean reduce_min reduce_prod reduce_sum repeat
    reshape reverse reverse_sequence rfftnd roll round saturate_cast scalar_mul
    scatter_nd searchsorted sequence_mask shape shape_n sigmoid sign sin sinh size slice
    sort space_to_batch space_to_batch_nd split sqrt square squeeze stack stop_gradient
    strided_slice subtract tan tanh tensor_scatter_nd_add tensor_scatter_nd_max
    tensor_scatter_nd_min tensor_scatter_nd_sub tensor_scatter_nd_update tensordot tile
    transpose truediv truncatediv truncatemod unique unique_with_counts unravel_index
    unstack where zeros zeros_like
"""
_READS_FILES = {"nn.fixed_unigram_candidate_sampler"}
# Attributes that Keras 2 asks ragged and sparse tensors for.
_ATTRIBUTES = """
    values flat_values row_splits nested_row_splits value_rowids nested_value_rowids
    nrows row_starts row_limits row_lengths nested_row_lengths bounding_shape
    with_values with_flat_values with_row_splits_dtype merge_dims to_tensor to_sparse
    indices dense_shape
"""
# Modules of Keras whose functions layers and compiled models hold, and names in them
# that Python has too.
_FUNCTIONS = "activations constraints initializers losses metrics ops regularizers"
_LIKE_PYTHON = "abs all any max min pow round sum"
# Layers and preprocessors read their vocabulary from a file where a text stands.
_VOCABULARIES = {"vocabulary", "idf_weights"}


def load(path, trust=False, modules=()):
    """Load a model that one Keras or the other has saved; nothing is compiled.

    Args:
        path: a ``.keras`` file.
        trust: run what is in the file: Python code of Lambda layers, modules that it
            names, functions of TensorFlow that do more than compute, and what it
            points to elsewhere: a SavedModel, the file of a vocabulary.
        modules: names of modules to import first, whose classes the file may name.

    Returns:
        A `keras.Model`.

    Raises:
        InputError: no such file, or not one of the running Keras; code in it, or
            classes of other modules, without `trust`; a class that is not registered.
    """
    metadata, config = _read(path)
    _check_generation(path, str(metadata.get("keras_version", "")))
    for name in modules:
        _import(name)
    if not trust:
        _check_harmless(path, config, {name.partition(".")[0] for name in modules})
    try:
        return keras.models.load_model(path, compile=False, safe_mode=not trust)
    except Exception as error:
        raise InputError(f"{path} cannot be loaded: {_gist(error)}") from error


def _import(name):
    try:
        importlib.import_module(name)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"--import {name} failed: {reason(error)}") from error


def _loaded(path, name, trust):
    try:
        return keras.models.load_model(path, compile=False, safe_mode=not trust)
    except Exception as error:
        raise InputError(
            f"Keras {_keras.VERSION} cannot load the {name} of this cut again, so "
            f"nothing is written: {_gist(error)}"
        ) from error


def _gist(error) -> str:
    """What is wrong, without the configs of all that was being made around it."""
    return (
        reason(error).rpartition("Exception encountered: ")[2].split(" Full object")[0]
    )


def _read(path) -> tuple:
    """The metadata and the config in a file, as JSON values; Keras is not asked."""
    if Path(path).suffix != ".keras":
        raise InputError(f"expected a .keras file, received {str(path)!r}")
    try:
        with zipfile.ZipFile(path) as file:
            values = [
                json.loads(file.read(f"{n}.json")) for n in ("metadata", "config")
            ]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except _DAMAGE as error:
        raise InputError(f"{path} is not a .keras file: {reason(error)}") from error
    if not all(isinstance(value, dict) for value in values):
        raise InputError(f"{path} is not a .keras file: its JSON holds no objects")
    return tuple(values)


def _check_generation(path, version):
    legacy = version.startswith("2.")
    if version and legacy != _keras.LEGACY:
        variables = f"TF_USE_LEGACY_KERAS={legacy:d} TF_KERAS={legacy:d}"
        raise InputError(
            f"{path} was saved by Keras {version}, and this is Keras "
            f"{_keras.VERSION}: set {variables}"
        )


def _check_harmless(path, config, imported):
    parts = list(_objects(config))
    coded = {repr(owner) for part, owner in parts if _holds_code(part)}
    if coded:
        raise InputError(
            f"{path} brings functions of its own in {', '.join(sorted(coded))}, which "
            "would run on this machine: give --trust if you know who made it"
        )
    calls = {f"{_acts(p)} in {owner!r}" for p, owner in parts if _acts(p) is not None}
    if calls:
        raise InputError(
            f"{path} calls {', '.join(sorted(calls))}, which may do more on this "
            "machine than compute: give --trust if you know who made it"
        )
    files = {f"{name!r} in {o!r}" for p, o in parts for name in _files(p)}
    if files:
        raise InputError(
            f"{path} reads a vocabulary from the file {', '.join(sorted(files))} of "
            "this machine: give --trust if you know who made it"
        )
    classes = {_class(part) for part, _ in parts if _is_foreign(part, imported)}
    if classes:
        raise InputError(
            f"{path} needs {', '.join(sorted(classes))}, which nothing here registers: "
            "give --import MODULE for the module that does"
        )


def _objects(config):
    """Every JSON object within `config`, and the name of the layer it belongs to."""
    pending = [(config, "model")]
    while pending:
        value, owner = pending.pop()
        if isinstance(value, dict):
            owner = value["name"] if isinstance(value.get("name"), str) else owner
            yield value, owner
            pending += [(inner, owner) for inner in value.values()]
        elif isinstance(value, list):
            pending += [(inner, owner) for inner in value]


def _holds_code(part) -> bool:
    """Whether a config brings a function, or what a SavedModel elsewhere does.

    Beside Lambda layers a ``__lambda__`` of Keras 3, and in Keras 2 what says
    ``"..._type": "lambda"``, as the wrappers of recurrent cells do.
    """
    return not _classes(part).isdisjoint({"Lambda", "__lambda__", "TFSMLayer"}) or any(
        name.endswith("_type") and value == "lambda" for name, value in part.items()
    )


def _classes(part) -> set:
    """The names under which the class of a config may be found: Keras 2 tries both."""
    names = (part.get("class_name"), part.get("registered_name"))
    return {str(name).rpartition(">")[2] for name in names}


def _acts(part):
    """The function that a config lets Keras 2 call, if it may do more than compute."""
    kinds = _classes(part)
    config = part.get("config")
    config = config if isinstance(config, dict) else {}
    if kinds & _OPS:
        name = str(config.get("function"))
        return None if _computes(name) else name
    if kinds & {"InstanceMethod", "InstanceProperty"}:
        name = str(config.get("attr_name"))
        return None if name in _ATTRIBUTES.split() else name
    if "ClassMethod" in kinds:
        owner, name = (str(config.get(key)) for key in ("cls_symbol", "method_name"))
        ragged = owner == "RaggedTensor" and name.startswith("from_")
        return None if ragged else f"{owner}.{name}"
    if "TensorFlowOpLayer" in kinds:
        node = config.get("node_def")
        return str(node.get("op")) if isinstance(node, dict) else "an operation"
    return None


def _computes(name) -> bool:
    """Whether a function of TensorFlow, by its public name, does nothing else."""
    name = name.removeprefix("compat.v1.")
    space, _, last = name.rpartition(".")
    # Classes are there too. The rest of `space` is linalg.experimental and the like.
    spaces = _NAMESPACES.split()
    within = space in spaces or space.partition(".")[0] in spaces
    pure = within and not last[:1].isupper() and name not in _READS_FILES
    return pure or name in _COMPUTE.split()


def _files(part) -> list:
    """The files that a config names instead of holding a vocabulary."""
    return [part[key] for key in _VOCABULARIES if isinstance(part.get(key), str)]


def _is_foreign(part, imported) -> bool:
    """Whether a config names a class or function that is not of Keras or known."""
    module = part.get("module", "")
    if "class_name" not in part or not isinstance(module, str | None):
        return False
    if _is_layer_here(module, part["class_name"]):
        return False
    is_function = part["class_name"] == "function"
    inside = "." in str(part.get("config") if is_function else part["class_name"])
    root = None if module is None else module.partition(".")[0]
    # tf_keras takes "os.system" for what a module of its own has imported.
    if root in {"", *_KNOWN, *imported} and not inside and not _misplaced(part):
        return False
    name = part.get("config" if is_function else "registered_name")
    known = name is None and not inside and not _misplaced(part)
    return not known and keras.utils.get_registered_object(str(name)) is None


def _is_layer_here(module, name) -> bool:
    """Whether a module that this program has imported already holds such a layer."""
    found = getattr(sys.modules.get(module), str(name), None)
    return isinstance(found, type) and issubclass(found, keras.layers.Layer)


def _misplaced(part) -> bool:
    """Whether a config names a function of Keras or Python that no layer would hold.

    Keras 2 looks into any module of its own, and calls a function it finds there like
    a layer (utils.get_file); Python's own functions are there too (eval).
    """
    steps, name = str(part.get("module") or "").split("."), str(part["class_name"])
    if name == "function":
        name = str(part.get("config"))
        python = hasattr(builtins, name) and name not in _LIKE_PYTHON.split()
        if steps == ["builtins"]:
            return python
        kept = not set(steps).isdisjoint(_FUNCTIONS.split())
        return steps[0] in {"keras", "tf_keras", "tiedbert"} and not kept
    # Those of `applications` are functions with the names of classes.
    return steps[0] in {"keras", "tf_keras"} and (
        name[:1].islower() or "applications" in steps
    )


def _class(part) -> str:
    key = "config" if part["class_name"] == "function" else "class_name"
    return ".".join(str(part[name]) for name in ("module", key) if part.get(name))


def check_free(folder, overwrite):
    """InputError unless a pair of models may be written into `folder`."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder} is a file: name a folder")
    if not folder.is_dir() or overwrite:
        return
    # What a killed run left behind is no obstacle: `save` removes it.
    if any(not path.name.startswith(_DRAFTS) for path in folder.iterdir()):
        raise InputError(f"--output {folder} is not empty: use --overwrite")


def save(models, folder, trust=False, check=None):
    """Write ``<name>.keras`` for each name of a dict of models: all whole, or none.

    They are moved to their names when all are written, load again and pass
    ``check(**loaded)``. Older ones go first: a process that is killed in between leaves
    a model out, never two that do not fit together.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make --output {folder}: {error.strerror}") from error
    for left in folder.glob(f"{_DRAFTS}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_DRAFTS, dir=folder) as drafts:
        loaded = {}
        for name, model in models.items():
            draft = Path(drafts, f"{name}.keras")
            model.save(draft)
            loaded[name] = _loaded(draft, name, trust)
        if check is not None:
            check(**loaded)
        for name in models:
            Path(folder, f"{name}.keras").unlink(missing_ok=True)
        for name in models:
            os.replace(Path(drafts, f"{name}.keras"), folder / f"{name}.keras")
