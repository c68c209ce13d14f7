"""Make one-line mistakes in copies of the library; the tests must catch each of them.

    make mutations            # all, about 3 minutes
    python tests/mutations.py mask norm    # those with one of these words in their name

Each mistake is made in a copy of its own, where the tests that are named with it run.
It prints a line for each, and the exit code is 1 if the tests do not fail.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COPIED = "tiedbert", "tests", "examples", "scripts", "pyproject.toml"
TEST_FAILED = 1  # pytest's exit code; others mean that the tests did not run


class Mutation(NamedTuple):
    """A mistake: `old`, which `file` has once, becomes `new`; `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple
    legacy: bool = False  # whether the tests run in Keras 2


MUTATIONS = [
    Mutation(
        "the mask is not attached behind a cut",
        "surgery/cut.py",
        "(tensor, attach(new[tensor], new[mask]))",
        "(tensor, new[tensor])",
        ("test_surgery.py::test_outputs_keep_their_masks_for_what_comes_after",),
    ),
    Mutation(
        "the mask of a crossing tensor does not cross",
        "surgery/crossing.py",
        "masks = self._masks_of(self.cut, in_any_case=True)",
        "masks = IdentityMap()",
        ("test_surgery.py::test_masks_cross_as_booleans_after_the_values",),
    ),
    Mutation(
        "the first tensor of the context is lost",
        "surgery/crossing.py",
        "self.context = self._graph.context(cut, self.calls)",
        "self.context = self._graph.context(cut, self.calls)[1:]",
        ("test_surgery.py::test_outputs_that_do_not_depend_on_the_cut_cross",),
    ),
    Mutation(
        "a copy of a head does not look for its table",
        "layers/restored_table.py",
        "found = _alike(self.layer, _keras.ancestors(inputs))",
        "found = []",
        ("test_layers.py::test_the_tie_survives_clone_model",),
    ),
    Mutation(
        "the table does not learn from the head",
        "layers/embedding_dense.py",
        "table = tf.convert_to_tensor(layer.embeddings)",
        "table = tf.stop_gradient(tf.convert_to_tensor(layer.embeddings))",
        ("test_layers.py::test_the_gradient_is_the_sum_of_both_sides",),
    ),
    Mutation(
        "the head has no bias",
        "layers/embedding_dense.py",
        "logits += tf.cast(tf.convert_to_tensor(self.bias), logits.dtype)",
        "pass",
        ("test_layers.py::test_the_bias_is_added_for_each_token",),
    ),
    Mutation(
        "the loss is a mean over positions, not over their weights",
        "losses/tied_cross_entropy.py",
        "mean = tf.math.divide_no_nan(loss, tf.reduce_sum(terms.weights))",
        "mean = loss / tf.cast(tf.size(terms.weights), loss.dtype)",
        ("test_losses.py::test_two_positions_by_hand",),
    ),
    Mutation(
        "the norm of a token is that of its example",
        "adversarial/norms.py",
        "return _unit(gradient, [-1])",
        "return _unit(gradient, _but_first(gradient))",
        ("test_adversarial_norms.py::test_tokens_have_a_direction_each",),
    ),
    Mutation(
        "the projection forgets the radius",
        "adversarial/norms.py",
        "radius * _unit(delta, axes), delta)",
        "_unit(delta, axes), delta)",
        ("test_adversarial_norms.py",),
    ),
    Mutation(
        "the dropout of a step is sampled twice",
        "adversarial/step.py",
        "self._seeds[i] if self.setup.same_dropout else _draw_seed()",
        "_draw_seed()",
        (
            "test_adversarial_random_numbers.py::test_passes_share_their_dropout_on_request",
        ),
    ),
    Mutation(
        "special tokens at the end are perturbed",
        "adversarial/perturbation_mask.py",
        "(token_ids != begin) & (token_ids != final)",
        "(token_ids != begin)",
        ("test_adversarial.py::test_special_tokens_are_not_perturbed",),
    ),
    Mutation(
        "micro-batches count alike, however many rows they have",
        "adversarial/micro_batches.py",
        "tf.cast(end - start, tf.float32) / tf.cast(rows, tf.float32)",
        "1.0 / tf.cast(times, tf.float32)",
        ("test_adversarial_micro_batches.py",),
    ),
    Mutation(
        "a curve ignores the sample weights",
        "robustness/accuracy_curve.py",
        "right.mean() if alike else np.average(right, weights=weights)",
        "right.mean()",
        (
            "test_robustness.py::"
            "test_the_accuracy_of_weighted_examples_is_their_weighted_mean",
        ),
    ),
    Mutation(
        "a curve attacks a model in training mode",
        "robustness/attacked_model.py",
        "_keras.call(self._cut.behind[i], tensors, training=False)",
        "_keras.call(self._cut.behind[i], tensors, training=True)",
        ("test_robustness.py::test_epsilon_0_is_the_accuracy_of_evaluate",),
    ),
    Mutation(
        "a local attention sees one token less",
        "bert/_keras3/biases.py",
        "<= self.reach",
        "< self.reach",
        ("test_bert_modern.py::test_hidden_states_are_those_of_the_formulas",),
    ),
    Mutation(
        "local attentions turn by the angles of the global ones",
        "bert/_keras3/modern_encoder.py",
        '"Embedding-Local-Rotary-Position", "local_rope_theta"',
        '"Embedding-Local-Rotary-Position", "global_rope_theta"',
        ("test_bert_modern.py::test_hidden_states_are_those_of_the_formulas",),
    ),
    Mutation(
        "an early gather adds the normalized states of a block with norms before",
        "bert/early_gather.py",
        "kept = queries if residual is hidden else gather(residual)",
        "kept = queries",
        ("test_bert_modern.py::test_an_early_gather_gives_the_same",),
    ),
    Mutation(
        "a stacked tensor is read in another order than it is written",
        "bert/hugging_face/modern_tensors.py",
        "zip(weights, _unstacked(name, tensor, weights), strict=True)",
        "zip(weights[::-1], _unstacked(name, tensor, weights), strict=True)",
        ("test_bert_modern.py::test_tensors_are_read_as_they_are_written",),
    ),
    Mutation(
        "the seed of what is written is used again for random ids",
        "text/masking.py",
        "_random_integers(shape, id_seed, first_ordinary_id",
        "_random_integers(shape, action_seed, first_ordinary_id",
        ("test_text_masking.py::test_random_ids_are_spread_over_the_ordinary_ones",),
    ),
    Mutation(
        "[MASK] is written at nine of ten places",
        "text/masking.py",
        "tf.where(action < 8, mask_id, random_ids)",
        "tf.where(action < 9, mask_id, random_ids)",
        ("test_text_masking.py::test_eighty_ten_ten",),
    ),
    Mutation(
        "the correction for many comparisons is one step short",
        "jobs/significance.py",
        "(len(order) - rank) * p_values[i]",
        "(len(order) - rank - 1) * p_values[i]",
        ("test_significance.py::test_holm",),
    ),
    Mutation(
        "a checkpoint leaves out the averaged weights",
        "jobs/finetune.py",
        'return {"average": trained.average}',
        "return {}",
        ("test_finetune.py::test_a_resumed_run_has_the_averaged_weights",),
    ),
    Mutation(
        "the scale of normalization decays",
        "jobs/optimization.py",
        "(bias|beta|gamma)",
        "(bias|beta)",
        ("test_optimization.py::test_matrices_decay_and_nothing_else",),
    ),
    Mutation(
        "the positions of RoBERTa count padding",
        "bert/_keras3/embeddings.py",
        "return order * present + self.padding_position",
        "return order + self.padding_position",
        ("test_bert_kinds.py::test_the_positions_of_roberta_are_those_of_fairseq",),
    ),
    Mutation(
        "the first token of a text is never padding",
        "bert/_keras3/encoder.py",
        "masks_first=self.kind.masks_first",
        "masks_first=False",
        ("test_bert_kinds.py::test_padding_changes_no_token",),
    ),
    Mutation(
        "a tensor of a file is left unread",
        "bert/hugging_face/tensors.py",
        "if name.startswith(form.bodies) or self._is_in_head(name, read):",
        "if False:",
        (
            "test_bert_hugging_face_kinds.py"
            "::test_a_tensor_that_would_be_left_unread_is_refused",
        ),
    ),
    Mutation(
        "an adapter is not written",
        "bert/own_weights.py",
        "return numbers + found[id(weight)] if id(weight) in found else numbers",
        "return numbers",
        (
            "test_bert_hugging_face_kinds.py"
            "::test_an_adapter_is_written_into_its_weights",
        ),
    ),
]


def main(words):
    """The exit code: 0 if the tests catch every mutation chosen."""
    chosen = [
        mutation
        for mutation in MUTATIONS
        if not words or any(word in mutation.name for word in words)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(outcome, chosen)
        survived = 0
        for mutation, said in zip(chosen, results, strict=True):
            survived += said != "caught"
            print(f"{said:10} {mutation.file}: {mutation.name}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} mutations are caught")
    return int(survived > 0)


def outcome(mutation) -> str:
    """What the tests say of a mutation: caught, SURVIVED or an error."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        copy_sources(copy)
        found = mutate(copy / "tiedbert" / mutation.file, mutation)
        if found != 1:
            return f"ERROR: the text is there {found} times:"
        done = run_tests(copy, mutation)
    if done.returncode == TEST_FAILED:
        return "caught"
    if done.returncode == 0:
        return "SURVIVED"
    return f"ERROR: pytest ended with {done.returncode}: {done.stdout[-500:]}"


def copy_sources(target):
    """Copy what the tests need from the tree."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            shutil.copy(source, target / name)


def mutate(path, mutation) -> int:
    """Make the mistake; how often the text to change is there."""
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    return text.count(mutation.old)


def run_tests(copy, mutation):
    """Run the tests of a mutation in a copy, up to the first that fails."""
    legacy = str(int(mutation.legacy))
    keras = {"TF_USE_LEGACY_KERAS": legacy, "TF_KERAS": legacy}
    # Before the folder in which tiedbert is installed.
    environment = {**os.environ, **keras, "PYTHONPATH": str(copy)}
    tests = [f"tests/{test}" for test in mutation.tests]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "-m", "", *tests],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
