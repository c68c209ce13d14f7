"""What a clone must keep: ties that would be lost are found and told."""

import contextlib
import dis
import functools
import inspect

from tensorflow import keras

from tiedbert import _keras
from tiedbert.errors import InputError

# No layer of a user is among their globals.
_LIBRARIES = {"tensorflow", "keras", "tf_keras", "numpy"}
_LOOKUPS = keras.layers.StringLookup, keras.layers.IntegerLookup


def paired_variables(pairs) -> dict:
    """id of a variable -> (it, its one copy), of all layers in `pairs`."""
    found, owners = {}, {}
    for source, copy in pairs:
        old, new = _keras.own_variables(source), _keras.own_variables(copy)
        if [v.shape for v in old] != [v.shape for v in new]:
            raise InputError(
                f"clone expected the copy of layer {source.name!r} "
                f"({type(source).__name__}) to have variables of the shapes "
                f"{_shapes(old)}, received {_shapes(new)}: {_how_to_make(source)}"
            )
        for variable, twin in zip(old, new, strict=True):
            owner = owners.setdefault(id(variable), source)
            if found.setdefault(id(variable), (variable, twin))[1] is not twin:
                raise InputError(untied([owner.name, source.name], "variable"))
    first = {}
    for variable, twin in found.values():
        other = first.setdefault(id(twin), variable)
        if other is not variable or id(twin) in found:
            names = {owners[id(v)].name for v in (variable, other)}
            raise InputError(untied(sorted(names), "its copy is not one of its own"))
    return found


def _how_to_make(source) -> str:
    mode = getattr(source, "quantization_mode", None)  # Keras 3
    if mode is None:
        return "its config must make them"
    return (
        f"it is quantized ({mode}), and no config tells how its variables are made; "
        "clone the model first, then quantize the copy"
    )


def untied(names, what) -> str:
    """The message about a tie that a copy of these layers would lose."""
    listed = " and ".join(repr(name) for name in names)
    return (
        f"clone cannot keep a tie of layer(s) {listed} ({what}): their configs make "
        "two of what is one; let one layer hold the other as an attribute"
    )


def _shapes(variables) -> str:
    return " ".join(str(tuple(v.shape)) for v in variables) or "(none)"


def check_arguments(calls):
    """A variable that a call is given would stay that of the original."""
    for call in calls:
        for leaf in _keras.leaves([call.args, call.kwargs]):
            if _keras.is_variable(leaf):
                raise InputError(
                    f"clone cannot keep the tie of {call.layer.name!r}, which is "
                    f"called on the variable {leaf.name!r} itself: write a layer that "
                    "holds its owner as an attribute, like EmbeddingDense"
                )


def layers_used(function, arguments) -> list:
    """Names of the layers and variables that a function takes from around it.

    It follows closures, globals, defaults, `functools.partial`, methods and the
    functions that those hold or call. What an attribute of another object or of a
    module holds is not seen.
    """
    names, seen, pending = [], set(), [function, *arguments.values()]
    while pending:
        for leaf in _keras.leaves([pending.pop()]):
            if id(leaf) in seen:
                continue
            seen.add(id(leaf))
            if isinstance(leaf, keras.layers.Layer) or _keras.is_variable(leaf):
                names.append(leaf.name)
            else:
                pending += _around(leaf)
    return names


def _around(function) -> list:
    """What a function uses that no call gives it; nothing of another object."""
    if isinstance(function, functools.partial):
        return [function.func, *function.args, *function.keywords.values()]
    if inspect.ismethod(function):
        return [function.__self__, function.__func__]
    if inspect.ismodule(function) or not callable(function):
        return []
    # Of what wraps a function (functools.wraps, tf.function), and of a function.
    found = [getattr(function, "__dict__", {}).get("__wrapped__")]
    if not inspect.isfunction(function):
        return found
    found += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # a name that is not bound yet
            found.append(cell.cell_contents)
    if str(function.__module__).partition(".")[0] not in _LIBRARIES:
        names = _globals_read(function.__code__)
        found += [function.__globals__.get(name) for name in names]
    return found


def _globals_read(code) -> set:
    """Names of globals that some code reads, in the functions that it makes too."""
    steps = dis.get_instructions(code)
    names = {s.argval for s in steps if s.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    made = [part for part in code.co_consts if inspect.iscode(part)]
    return names.union(*map(_globals_read, made))


def copy_learned(source, copy):
    """Give `copy` what `source` has learned by `adapt` and no variable holds.

    Before it is called: the shape of its output may depend on that.
    """
    if isinstance(source, keras.layers.Discretization):
        if source.bin_boundaries is not None:
            copy.bin_boundaries = [float(bound) for bound in source.bin_boundaries]
    elif isinstance(source, _LOOKUPS):
        _copy_vocabulary(source, copy)


def _copy_vocabulary(source, copy):
    words = source.get_vocabulary()  # the special ones first, as set_vocabulary wants
    if list(words) == list(copy.get_vocabulary()):
        return
    if source.output_mode == "tf_idf":
        copy.set_vocabulary(words, source.idf_weights.numpy()[: len(words)])
    else:
        copy.set_vocabulary(words)


def finalize_state(copy):
    """Let a copy derive what it keeps beside its variables, as Normalization does.

    The others of Keras would make what they have learned from counts that no copy has.
    """
    learned = keras.layers.Discretization, *_LOOKUPS, keras.layers.TextVectorization
    if hasattr(copy, "finalize_state") and not isinstance(copy, learned):
        copy.finalize_state()


def check_state(source, copy):
    """What layers keep beside their variables must have come through the config."""
    if _keras.count_added_losses(source) != _keras.count_added_losses(copy):
        raise InputError(
            f"clone cannot keep a loss that was added to {source.name!r} from outside, "
            "as a function of the original's variables: use a regularizer"
        )
    words = getattr(source, "get_vocabulary", list)()
    if words != getattr(copy, "get_vocabulary", list)():
        raise InputError(
            f"clone cannot keep the vocabulary that {source.name!r} has learned: "
            "give it to its constructor"
        )
