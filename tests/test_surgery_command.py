"""`python -m tiedbert.surgery`: what it prints, writes and refuses."""

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import models
import numpy as np
import pytest
import tensorflow as tf
from generation import IS_LEGACY
from models import assert_same, batch
from tensorflow import keras
from test_surgery_drawing import classifier
from variants import slow

from tiedbert.errors import InputError
from tiedbert.surgery import model_files, trust
from tiedbert.surgery.command_line import main

layers = keras.layers
ROOT = Path(__file__).parents[1]
LEGACY = "1" if IS_LEGACY else "0"
OTHER = "0" if IS_LEGACY else "1"


@pytest.fixture
def saved(tmp_path):
    """Saves a model as model.keras; gives the path as the command takes it."""

    def save(model):
        model.save(tmp_path / "model.keras")
        return str(tmp_path / "model.keras")

    return save


def process(*arguments, **environment):
    """The command in a process of its own; stderr without TensorFlow's notes."""
    generation = {"TF_USE_LEGACY_KERAS": LEGACY, "TF_KERAS": LEGACY}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-m", "tiedbert.surgery", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **generation, "PYTHONPATH": paths, **environment},
    )
    notes = r"[IWE]\d{4}|WARNING: All log|To enable the following|\d{4}-\d\d-\d\d "
    lines = [line for line in done.stderr.splitlines() if not re.match(notes, line)]
    return done.returncode, done.stdout.splitlines(), lines


def rows(text):
    return [re.split(r"  +", line) for line in text.splitlines()]


def refused(*arguments):
    """The message of a mistake that is found while the command runs."""
    with pytest.raises(InputError) as caught:
        main([str(argument) for argument in arguments])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewritten(path, change):
    """Let `change` edit the config and the metadata in a saved model."""
    with zipfile.ZipFile(path) as file:
        content = {name: file.read(name) for name in file.namelist()}
    parsed = {n: json.loads(content[f"{n}.json"]) for n in ("config", "metadata")}
    change(parsed["config"], parsed["metadata"])
    content.update({f"{n}.json": json.dumps(v).encode() for n, v in parsed.items()})
    with zipfile.ZipFile(path, "w") as file:
        for name, data in content.items():
            file.writestr(name, data)


@pytest.mark.both_kerases
def test_list_is_an_aligned_table(saved, capsys):
    main([saved(models.residual()), "--list"])
    text = capsys.readouterr().out
    head, image, *_ = text.splitlines()
    assert head.split("  ")[0] == "cut point"
    assert image.index("Input") == head.index("layer")
    assert image.index("(?, 4, 4, 2) float32") == head.index("tensor")
    found = {row[0]: row[1:] for row in rows(text)}
    assert found["a_norm"] == ["BatchNormalization", "(?, 4, 4, 2) float32", "2"]
    assert found["a_sum"] == ["Add", "(?, 4, 4, 2) float32", "1"]


def test_list_reaches_into_nested_models(saved, capsys):
    main([saved(classifier()), "--list"])
    names = [row[0] for row in rows(capsys.readouterr().out)]
    assert names[:4] == ["cut point", "ids", "encoder", "encoder/embedding"]


def test_each_output_of_a_layer_is_listed_and_can_be_cut(saved, tmp_path, capsys):
    path = saved(models.states())
    main([path, "--list"])
    found = {row[0]: row[1:] for row in rows(capsys.readouterr().out)}
    assert found["states#1"] == ["SimpleRNN", "(?, 3) float32", "2"]
    main([path, "--cut", "states#1", "--output", str(tmp_path / "parts")])
    table = rows(capsys.readouterr().out)
    assert [row[2] for row in table[1:3]] == ["states#1", "states#0"]


def test_parts_that_are_not_the_model_are_not_written(saved, tmp_path, monkeypatch):
    path = saved(models.chain())
    monkeypatch.setattr(model_files, "load", lambda *_: models.chain())
    good = model_files._loaded

    def another(*args):
        part = good(*args)
        part.set_weights([weight + 1 for weight in part.get_weights()])
        return part

    monkeypatch.setattr(model_files, "_loaded", another)
    message = refused(path, "--cut", "middle", "--output", tmp_path / "parts")
    assert "give another 'last' than the model at this cut" in message
    assert list((tmp_path / "parts").iterdir()) == []


def test_parts_of_a_model_that_draws_are_written_and_a_note_says_so(
    saved, tmp_path, capsys
):
    x = keras.Input((4,), name="x")
    h = layers.Dense(3, name="h")(x)
    h = layers.GaussianNoise(0.5, name="noise")(h, training=True)
    path = saved(keras.Model(x, layers.Dense(2, name="last")(h)))
    main([path, "--cut", "h", "--output", str(tmp_path / "parts")])
    assert "not compared with the model: its outputs differ between two runs" in (
        capsys.readouterr().err
    )
    assert len(list((tmp_path / "parts").iterdir())) == 2


def test_parts_that_fail_are_not_written(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(model_files, "load", lambda *_: models.chain())
    monkeypatch.setattr(model_files, "_loaded", lambda *_: models.residual())
    message = refused(
        saved(models.chain()), "--cut", "middle", "--output", tmp_path / "parts"
    )
    assert "do not compose at this cut" in message
    assert list((tmp_path / "parts").iterdir()) == []


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("build", "cut"),
    [
        slow(models.residual, ["a_norm"]),
        slow(models.recurrent, ["dense"]),
        (models.dictionaries, ["side", "summary"]),
        slow(models.shared, ["dense:2"]),
        (classifier, ["encoder/attention_norm_1"]),
    ],
)
def test_the_parts_on_disk_compose_to_the_model(build, cut, saved, tmp_path):
    model = build()
    cuts = [word for name in cut for word in ("--cut", name)]
    main([saved(model), *cuts, "--output", str(tmp_path / "a" / "parts")])
    folder = tmp_path / "a" / "parts"
    assert sorted(p.name for p in folder.iterdir()) == ["front.keras", "rest.keras"]
    front, rest = (
        keras.models.load_model(folder / f"{name}.keras", compile=False)
        for name in ("front", "rest")
    )
    x = batch(model)
    assert_same(rest(front(x)), model(x))


def test_cut_prints_what_crosses_in_order(saved, tmp_path, capsys):
    folder = tmp_path / "parts"
    main([saved(models.dictionaries()), "--cut", "summary", "--output", str(folder)])
    *table, front, rest = capsys.readouterr().out.splitlines()
    mask = "embedding" if IS_LEGACY else "not_equal"
    names = ["summary", "side", "side_score", "embedding", mask]
    kinds = ["cut", "context", "context", "context", "mask"]
    parsed = rows("\n".join(table[1:]))
    assert [row[0] for row in parsed] == list("01234")
    assert [row[1] for row in parsed] == kinds
    assert [re.sub(r"_\d+$", "", row[2]) for row in parsed] == names
    assert parsed[0][3] == "(?, 4) float32"
    assert parsed[4][3] == "(?, ?) bool"
    assert (front, rest) == (f"{folder}/front.keras", f"{folder}/rest.keras")


def test_cut_tells_the_path_of_what_lies_in_a_nested_model(saved, tmp_path, capsys):
    folder = str(tmp_path / "parts")
    main([saved(classifier()), "--cut", "encoder/attention_2", "--output", folder])
    made_by = [row[2] for row in rows(capsys.readouterr().out) if len(row) == 4]
    assert made_by[:2] == ["encoder/attention_2", "encoder/feed_forward_norm_1"]


def test_a_folder_with_something_in_it_is_kept(saved, tmp_path):
    path = saved(models.chain())
    (tmp_path / "front.keras").write_text("mine")
    message = refused(path, "--cut", "middle", "--output", tmp_path)
    assert message == f"--output {tmp_path} is not empty: use --overwrite"
    assert (tmp_path / "front.keras").read_text() == "mine"
    main([path, "--cut", "middle", "--output", str(tmp_path), "--overwrite"])
    assert zipfile.is_zipfile(tmp_path / "front.keras")
    assert Path(path).exists()


def test_a_file_is_no_folder(saved):
    path = saved(models.chain())
    assert "is a file" in refused(path, "--cut", "middle", "--output", path)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("when", ["front", "rest", "moved"])
def test_a_killed_run_leaves_no_half_of_a_pair(when, tmp_path, monkeypatch):
    class Model:
        def __init__(self, name):
            self.name = name

        def save(self, path):
            path.write_text(self.name)
            if self.name.endswith(when):
                raise Killed

    def replace(source, target):
        if when == "moved" and target.name == "rest.keras":
            raise Killed
        os.rename(source, target)

    monkeypatch.setattr(keras.models, "load_model", lambda *_, **__: None)
    model_files.save({"front": Model("old"), "rest": Model("old")}, tmp_path)
    monkeypatch.setattr(model_files.os, "replace", replace)
    with pytest.raises(Killed):
        model_files.save({n: Model(f"new {n}") for n in ("front", "rest")}, tmp_path)
    left = {path.name: path.read_text() for path in tmp_path.glob("*.keras")}
    old = {"front.keras": "old", "rest.keras": "old"}
    assert left == ({"front.keras": "new front"} if when == "moved" else old)


def test_what_a_killed_run_left_is_no_obstacle_and_goes(saved, tmp_path):
    path, folder = saved(models.chain()), tmp_path / "halves"
    (folder / ".part-old").mkdir(parents=True)
    (folder / ".part-old" / "front.keras").write_text("half")
    main([path, "--cut", "middle", "--output", str(folder)])
    assert sorted(p.name for p in folder.iterdir()) == ["front.keras", "rest.keras"]


@pytest.mark.both_kerases
def test_parts_that_would_not_load_again_are_not_written(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ValueError("Layer 'emb' expected 1 variables")

    monkeypatch.setattr(keras.models, "load_model", broken)
    with pytest.raises(InputError, match="cannot load the front of this cut again"):
        model_files.save({"front": models.chain()}, tmp_path / "halves")
    assert list((tmp_path / "halves").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make --output"):
        model_files.save({}, tmp_path / "file" / "halves")


def test_the_folder_of_a_picture_is_checked_before_anything_is_written(saved, tmp_path):
    path, halves = saved(models.chain()), tmp_path / "halves"
    picture = tmp_path / "nowhere" / "cut.dot"
    message = refused(path, "--cut", "middle", "--output", halves, "--draw", picture)
    assert "no such folder" in message
    assert not halves.exists()


def test_draw_writes_the_picture_of_the_cut(saved, tmp_path, capsys):
    path = str(tmp_path / "a.dot")
    main([saved(models.chain()), "--cut", "middle", "--draw", path])
    assert capsys.readouterr().out.splitlines()[-1] == path
    assert "cut tensor" in Path(path).read_text()
    main([saved(models.chain()), "--draw", path])
    assert "cut tensor" not in Path(path).read_text()


def with_lambda():
    x = keras.Input((3,), name="x")
    return keras.Model(x, layers.Lambda(lambda x: x * 2, name="double")(x))


def nested_lambda():
    x = keras.Input((3,), name="x")
    return keras.Model(x, layers.Dense(2)(with_lambda()(x)))


@pytest.mark.both_kerases
@pytest.mark.parametrize("build", [with_lambda, nested_lambda])
def test_code_in_a_file_does_not_run_unless_trusted(build, saved, monkeypatch, capsys):
    path = saved(build())
    with monkeypatch.context() as patched:
        patched.setattr(keras.models, "load_model", None)  # It is not even called.
        message = refused(path, "--list")
    assert message == (
        f"{path} brings functions of its own in 'double', which would run on this "
        "machine: give --trust if you know who made it"
    )
    main([path, "--list", "--trust"])
    assert "double" in capsys.readouterr().out


@pytest.mark.both_kerases
@pytest.mark.parametrize(
    "part",
    [
        {"class_name": "Other", "registered_name": "keras>Lambda", "config": {}},
        {"class_name": "__lambda__", "config": {"value": "4wE="}},
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {}},
        {
            "class_name": "TensorFlowOpLayer",
            "config": {"node_def": {"op": "WriteFile"}},
        },
        {"residual_fn": ["4wE="], "residual_fn_type": "lambda"},
    ],
)
@pytest.mark.parametrize("wrap", [lambda part: part, lambda part: [[{"a": part}]]])
def test_code_is_found_wherever_it_is(part, wrap, saved):
    path = saved(models.chain())
    rewritten(path, lambda config, _: config.update(hidden=wrap(part)))
    assert "brings functions of its own in 'model'" in refused(path, "--list")


def op(kind="TFOpLambda", **config):
    """What Keras 2 writes for a function of TensorFlow."""
    name = "op"
    return {"class_name": kind, "name": name, "config": {"name": name, **config}}


@pytest.mark.both_kerases
def test_each_class_name_of_a_config_is_looked_at():
    """Keras takes one of them; the check may not take another."""
    part = op(function="io.write_file", attr_name="reshape")
    part["registered_name"] = "InstanceMethod"
    with pytest.raises(InputError, match="calls io.write_file in 'op'"):
        trust.check_harmless("model.keras", {"layers": [part]})


@pytest.mark.both_kerases
@pytest.mark.parametrize("named", ["class_name", "registered_name"])
@pytest.mark.parametrize(
    "prefix",
    [{}, {"module": "tf_keras.src.layers.core.tf_op_layer", "registered_name": None}],
)
def test_a_file_cannot_write_files(named, prefix, saved, tmp_path):
    path, target = saved(models.chain()), tmp_path / "written"
    layer = {**prefix, **op(function="io.write_file")}
    if named == "registered_name":
        layer.update(class_name="Nothing", registered_name="TFOpLambda")
    constant = ["_CONSTANT_VALUE", -1, str(target), {"contents": "payload"}]
    layer["inbound_nodes"] = [constant]
    rewritten(path, lambda config, _: config["config"]["layers"].append(layer))
    message = refused(path, "--list")
    assert message == (
        f"{path} calls io.write_file in 'op', which is not on the list of functions "
        "that only compute: give --trust if you know who made it"
    )
    assert not target.exists()


@pytest.mark.both_kerases
@pytest.mark.parametrize(
    ("part", "function"),
    [
        (op(function="py_function"), "py_function"),
        (op(function="compat.v1.py_func"), "compat.v1.py_func"),
        (op(function="math"), "math"),
        (op(function=None), "None"),
        (op(function="nn.RNNCellDeviceWrapper"), "nn.RNNCellDeviceWrapper"),
        (
            op(function="nn.fixed_unigram_candidate_sampler"),
            "nn.fixed_unigram_candidate_sampler",
        ),
        (op("SlicingOpLambda", function="io.read_file"), "io.read_file"),
        (op("InstanceMethod", attr_name="__reduce__"), "__reduce__"),
        (op("InstanceProperty", attr_name="__class__"), "__class__"),
        (
            op("ClassMethod", cls_symbol="data.Dataset", method_name="from_file"),
            "data.Dataset.from_file",
        ),
    ],
)
def test_only_functions_that_compute_are_called(part, function, saved):
    path = saved(models.chain())
    rewritten(path, lambda config, _: config.update(hidden=[part]))
    assert f" calls {function} in 'op', " in refused(path, "--list")


@pytest.mark.both_kerases
@pytest.mark.cases(4)
@pytest.mark.parametrize("build", models.MODELS)
def test_ordinary_models_need_no_trust(build, saved):
    if IS_LEGACY and build is models.constants:
        pytest.skip("Keras 2 does not load what it has saved")
    model = build()
    model.compile("adam", "mse", metrics=["mae"])
    loaded = model_files.load(saved(model))
    assert_same(loaded(batch(model)), model(batch(model)))


@pytest.mark.legacy_keras
def test_common_functions_need_no_trust(saved):
    x = keras.Input((3,))
    h = tf.reshape(-x + 1.0, tf.shape(x))[:, 1:]
    h = tf.concat([h @ [[1.0], [2.0]], tf.cast(h > 0, h.dtype)], axis=-1)
    model = keras.Model(x, tf.where(h > tf.reduce_mean(h), tf.nn.relu(h), tf.exp(h)))
    kinds = {type(layer).__name__ for layer in model.layers}
    assert kinds == {"InputLayer", "TFOpLambda", "SlicingOpLambda"}
    values = tf.constant([[1.0, 2.0, -3.0]])
    assert_same(model_files.load(saved(model))(values), model(values))


@pytest.mark.both_kerases
@pytest.mark.parametrize("key", ["vocabulary", "idf_weights"])
@pytest.mark.parametrize("kind", ["StringLookup", "IntegerLookup", "TextVectorization"])
def test_a_file_cannot_read_files(kind, key, saved, tmp_path):
    (tmp_path / "secret").write_text("1\n2\n")
    path = saved(models.chain())
    config = {"name": "words", "vocabulary": ["1"], key: f"{tmp_path}/secret"}
    layer = {"module": "keras.layers", "class_name": kind, "registered_name": None}
    layer.update(config=config, name="words", inbound_nodes=[])
    rewritten(path, lambda config, _: config["config"]["layers"].append(layer))
    assert refused(path, "--list") == (
        f"{path} reads a vocabulary from the file '{tmp_path}/secret' in 'words' of "
        "this machine: give --trust if you know who made it"
    )


def test_a_vocabulary_in_the_file_needs_no_trust(saved):
    words = keras.Input((), dtype="string")
    lookup = layers.StringLookup(vocabulary=["to", "be"])
    assert model_files.load(saved(keras.Model(words, lookup(words))))


@pytest.mark.both_kerases
def test_safe_mode_guards_what_the_search_does_not_know(saved, monkeypatch):
    path = saved(with_lambda())
    monkeypatch.setattr(trust, "_holds_code", lambda part: False)
    assert "cannot be loaded: Requested the deserialization" in refused(path, "--list")


@pytest.mark.both_kerases
@pytest.mark.parametrize("registered", ["Dense", None])
def test_no_module_that_a_file_names_is_imported(
    registered, saved, tmp_path, monkeypatch
):
    (tmp_path / "payload.py").write_text("open('ran', 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    path = saved(models.chain())

    def point_elsewhere(config, _):
        layer = config["config"]["layers"][1]
        layer.update(module="payload", class_name="Dense", registered_name=registered)

    rewritten(path, point_elsewhere)
    message = refused(path, "--list")
    assert "needs payload.Dense, which is not registered: give --import" in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.both_kerases
@pytest.mark.parametrize(
    "function",
    [
        {"module": "os", "config": "system"},
        {"module": None, "config": "system"},
        {"module": "tf_keras.src.saving.saving_lib", "config": "os.system"},
        {"module": "builtins", "config": "eval"},
        {"module": "keras.utils", "config": "get_file"},
        {"module": "tiedbert.surgery.model_files", "config": "load"},
        {"module": "keras.utils", "class_name": "get_file", "config": {}},
        {"module": "keras.applications", "class_name": "VGG16", "config": {}},
        {"module": "payload", "config": "relu"},
        {"module": "subprocess", "class_name": "Popen", "config": {"args": "ls"}},
    ],
)
def test_a_file_cannot_name_a_function_of_other_modules(function, saved, monkeypatch):
    path = saved(models.chain())
    function = {"class_name": "function", "registered_name": "function", **function}

    def activate(config, _):
        config["config"]["layers"][1]["config"]["activation"] = function

    rewritten(path, activate)
    monkeypatch.setattr(keras.models, "load_model", None)
    assert "which is not registered" in refused(path, "--list")


def unregistered_activation(x):
    return x * tf.sigmoid(2.0 * x)


@pytest.mark.both_kerases
def test_a_function_that_is_not_registered_is_loaded_by_no_keras(saved):
    x = keras.Input((4,))
    path = saved(keras.Model(x, layers.Activation(unregistered_activation)(x)))
    message = refused(path, "--list", "--import", __name__)
    assert message == (
        f"{path} needs unregistered_activation, which is not registered: give --import "
        "MODULE for the module that registers it"
    )
    # Keras does not write the name of its module.
    assert "cannot be loaded" in refused(path, "--list", "--trust")


def test_registered_layers_are_known(saved, capsys):
    main([saved(models.keywords()), "--list"])
    assert "scaled     Scaled" in capsys.readouterr().out


@pytest.mark.both_kerases
def test_a_file_of_the_other_keras_is_told_apart(saved):
    path = saved(models.chain())
    version = "3.4.5" if IS_LEGACY else "2.9.0"
    rewritten(path, lambda _, metadata: metadata.update(keras_version=version))
    message = refused(path, "--list")
    assert f"was saved by Keras {version}, and this is Keras " in message
    assert message.endswith(f": set TF_USE_LEGACY_KERAS={OTHER} TF_KERAS={OTHER}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.h5", b"", r"expected a \.keras file, received '.*a\.h5'"),
        ("a.keras", b"", "is not a .keras file: File is not a zip file"),
        ("b.keras", None, "cannot read .*b.keras: No such file or directory"),
        ("c.keras", {"x.json": "{}"}, "is not a .keras file: .*metadata.json"),
        ("d.keras", {"metadata.json": "{", "config.json": "{}"}, "not a .keras file"),
        ("e.keras", {"metadata.json": "{}", "config.json": "[]"}, "holds no objects"),
        ("f.keras", {"metadata.json": "{}", "config.json": "{}"}, "cannot be loaded"),
        ("g.keras", {"metadata.json": "{}", "config.json": "[" * 9**6}, "not a .keras"),
    ],
)
def test_what_is_no_model_is_told(name, content, message, tmp_path):
    path = tmp_path / name
    if isinstance(content, dict):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for inner, text in content.items():
                file.writestr(inner, text)
        content = buffer.getvalue()
    if content is not None:
        path.write_bytes(content)
    assert re.search(message, refused(path, "--list"))


def test_a_file_of_more_json_than_a_model_has_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(model_files, "_LARGEST_BYTES", 30)
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", " " * 31)
    message = refused(path, "--list")
    assert "config.json has 31 bytes, expected at most 30" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to do: give --list, --cut or --draw"),
        (["--cut", "middle"], "--cut needs --output DIR or --draw FILE"),
        (["--list", "--output", "parts"], "--output needs --cut NAME"),
    ],
)
def test_options_that_do_not_fit_end_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(["model.keras", *arguments])
    assert end.value.code == 2
    assert f"error: {message} (see --help)" in capsys.readouterr().err


def test_a_wrong_point_is_told_with_the_names_that_are_there(saved, tmp_path):
    message = refused(
        saved(models.chain()), "--cut", "midle", "--output", tmp_path / "o"
    )
    assert message == 'no layer "midle" in model \'chain\': did you mean "middle"?'
    assert not (tmp_path / "o").exists()


def test_names_cannot_steer_the_terminal(saved, capsys):
    path = saved(models.chain())
    archive_names = "mid\x1b[2Jdle"
    text = json.dumps(archive_names)[1:-1]

    def rename(config, _):
        changed = json.loads(json.dumps(config).replace("middle", text))
        config.clear()
        config.update(changed)

    rewritten(path, rename)
    try:
        main([path, "--list"])
    except InputError:  # Keras 2 wants tamer names.
        assert IS_LEGACY
    else:
        assert "mid\\x1b[2Jdle" in capsys.readouterr().out


def test_the_command_lists_and_cuts(saved, tmp_path):
    model = models.recurrent()
    path = saved(model)
    folder = tmp_path / "parts"
    arguments = ["--list", "--cut", "dense", "--output", folder, "--import", "models"]
    status, out, errors = process(path, *arguments)
    assert (status, errors) == (0, [])
    assert out[0].startswith("cut point")
    assert out[-2:] == [f"{folder}/front.keras", f"{folder}/rest.keras"]
    front, rest = (keras.models.load_model(line) for line in out[-2:])
    tokens = batch(model)
    for a, b in zip(rest(front(tokens)), model(tokens), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_mistakes_end_in_one_line_and_status_2(saved):
    path = saved(models.recurrent())
    status, out, errors = process(path, "--list")
    assert (status, out, len(errors)) == (2, [], 1)
    assert errors[0].startswith(f"tiedbert.surgery: error: {path} needs ")
    assert "ShowMask" in errors[0]


@pytest.mark.slow
def test_a_module_that_cannot_be_imported_ends_so_too(saved):
    path = saved(models.recurrent())
    status, out, errors = process(path, "--list", "--import", "nowhere")
    line = "tiedbert.surgery: error: --import nowhere failed: No module named 'nowhere'"
    assert (status, out, errors) == (2, [], [line])


@pytest.mark.slow
def test_the_other_keras_in_a_process(saved):
    path = saved(models.chain())
    other = {"TF_USE_LEGACY_KERAS": OTHER, "TF_KERAS": OTHER}
    status, out, errors = process(path, "--list", **other)
    assert (status, out) == (2, [])
    assert errors[-1].endswith(f"set TF_USE_LEGACY_KERAS={LEGACY} TF_KERAS={LEGACY}")


@pytest.mark.both_kerases
@pytest.mark.slow
@pytest.mark.legacy_keras
def test_a_model_of_bert4keras_is_listed(saved, tmp_path):
    from bert_samples import write_config

    from tiedbert.bert import build_bert

    path = saved(build_bert(write_config(tmp_path)))
    status, out, errors = process(path, "--list", "--import", "tiedbert.bert")
    assert (status, errors) == (0, [])
    found = {row[0]: row[1:] for row in rows("\n".join(out))}
    norm = ["LayerNormalization", "(?, ?, 16) float32", "2"]
    assert found["Embedding-Norm"] == norm
