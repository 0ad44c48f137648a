"""
What each layer of an encoder separates: the EER of a linear probe on the mean over time of each hidden state, and the
weights that a model has learnt. For `nes2net layers`. Needs the extra `train`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..calibration import halves
from ..configuration_nes2net import Nes2NetConfig
from ..corpora.loading import open_rows
from ..corpora.utterances import read_utterance
from ..errors import AudioError, EvaluationError, ModelError
from ..feature_extraction_nes2net import Nes2NetFeatureExtractor
from ..hub import why
from ..metrics import equal_error_rate
from ..modeling_nes2net import Nes2NetModel, WeightedSum
from ..pretrained.cache import locate
from ..pretrained.load import choose_device, load_model

_PENALTY = 1e-3  # of the squared weights of a probe, beside a mean loss; features have unit variance


@dataclass(frozen=True)
class Layer:
    number: int
    """0 is the input of the first transformer layer, n the output of layer n."""
    eer: float
    """A fraction, the mean over both halves, each judged by a probe trained on the other."""
    weight: float | None
    """What a weighted sum has learnt for it; None if the model has another aggregation or does not read the layer."""


@dataclass(frozen=True)
class Probed:
    layers: list[Layer]
    bonafide: int
    spoof: int
    """Utterances of each class that were read."""
    unreadable: int
    halves_by: str
    """`speaker` or `utterance`."""


def probe_layers(
    model: str,
    *,
    corpus: str,
    root: str,
    split: str | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
    limit: int = 1000,
    revision: str | None = None,
    batch_size: int = 16,
) -> Probed:
    """
    Probes the layers of a Nes2Net model or of a bare encoder, on the first window of each utterance.

    Args:
        model: Hub id or folder.
        corpus, root, split, where: see `load_corpus`.
        limit: utterances of each class, drawn at random but always the same.
        revision: revision of the model on the Hub.
        batch_size: utterances per batch.

    Raises:
        ModelError, CorpusError: the model or the corpus cannot be opened.
        EvaluationError: one class has too few utterances that can be read.
    """
    network, extractor = _load(model, revision)
    rows = open_rows(
        corpus, split, root=root, where=where, columns_read=("utterance_id", "audio", "label", "speaker_id")
    )
    chosen = _draw(rows.labels, limit)
    means, read = _means(network, extractor, rows, chosen, batch_size)
    labels = rows.labels[read]
    counts = [int((labels == label).sum()) for label in (0, 1)]
    if min(counts) < 4:
        raise EvaluationError(
            f"a probe needs at least four utterances of each class, got {counts[1]} bona fide and {counts[0]} spoofed "
            "that can be read: choose another split or corpus."
        )
    speakers = rows.column("speaker_id")
    first, by = _halves(labels, [speakers[row] for row in read])
    weights = _weights(network)
    layers = [
        Layer(number, _eer(means[:, number], torch.from_numpy(labels), torch.from_numpy(first)), weights.get(number))
        for number in range(means.shape[1])
    ]
    return Probed(layers, counts[1], counts[0], len(chosen) - len(read), by)


def _load(name: str, revision: str | None) -> tuple[Nes2NetModel, Nes2NetFeatureExtractor]:
    name, revision = locate(name, revision)
    device = choose_device()
    try:
        fields, _ = Nes2NetConfig.get_config_dict(name, revision=revision or "main")
        if fields.get("model_type") != Nes2NetConfig.model_type:
            network: Any = Nes2NetModel.from_encoder_pretrained(name, revision=revision)
            return network.to(device).eval(), Nes2NetFeatureExtractor()
    except (OSError, ValueError) as error:
        raise ModelError(f"model {name} could not be loaded: {why(error).rstrip('.')}.") from None
    whole, extractor = load_model(name, revision, device, "float32")
    extractor.length_policy = "first"
    return whole.nes2net, extractor


def _draw(labels: NDArray[Any], limit: int) -> list[int]:
    """Returns rows of at most `limit` utterances of each class, in order."""
    generator = np.random.default_rng(0)
    drawn = [generator.permutation(np.flatnonzero(labels == label))[:limit] for label in (0, 1)]
    return sorted(np.concatenate(drawn).tolist())


@torch.inference_mode()
def _means(
    network: Nes2NetModel, extractor: Nes2NetFeatureExtractor, rows: Any, chosen: list[int], batch_size: int
) -> tuple[Tensor, list[int]]:
    """Returns the means of all hidden states over time (N, L + 1, D), and the rows that could be read."""
    read: list[int] = []
    means: list[Tensor] = []
    for start in range(0, len(chosen), batch_size):
        waveforms = []
        for row in chosen[start : start + batch_size]:
            try:
                waveforms.append(read_utterance(rows[row]))
                read.append(row)
            except AudioError:  # counted
                continue
        if waveforms:
            inputs = extractor(waveforms, sampling_rate=extractor.sampling_rate, return_tensors="pt")["input_values"]
            _, states, _, _ = network.encode(inputs.to(network.device), output_hidden_states=True)
            means.append(torch.stack([state.float().mean(1) for state in states], dim=1).cpu())
    if not means:
        raise EvaluationError("no utterance could be read: run nes2net corpus check.")
    return torch.cat(means), read


def _halves(labels: NDArray[Any], speakers: list[str | None]) -> tuple[NDArray[np.bool_], str]:
    """Returns which utterances are in the first half, and what was halved."""
    if all(speakers):
        first = halves(speakers)
        if all((labels[half] == label).any() for half in (first, ~first) for label in (0, 1)):
            return first, "speaker"
    first = np.empty(len(labels), bool)
    for label in (0, 1):
        place = np.flatnonzero(labels == label)
        first[place] = np.arange(place.size) % 2 == 0
    return first, "utterance"


def _eer(means: Tensor, labels: Tensor, first: Tensor) -> float:
    """Returns the mean EER of two linear probes on features (N, D), each trained on one half."""
    eers = []
    for seen in (first, ~first):
        middle, spread = means[seen].mean(0), means[seen].std(0).clamp(min=1e-6)
        scores = _probe((means - middle) / spread, labels, seen)[~seen]
        bonafide = labels[~seen] == 1
        eers.append(equal_error_rate(scores[bonafide].numpy(), scores[~bonafide].numpy()).eer)
    return float(np.mean(eers))


def _probe(features: Tensor, labels: Tensor, seen: Tensor) -> Tensor:
    """Returns the scores (N,) of a logistic regression trained on the `seen` rows, both classes weighted alike."""
    targets = (labels[seen] == 1).float()
    shares = torch.where(targets == 1, 0.5 / targets.mean(), 0.5 / (1 - targets.mean()))
    weights = torch.zeros(features.shape[1] + 1, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits = features[seen] @ weights[1:] + weights[0]
        value = F.binary_cross_entropy_with_logits(logits, targets, shares) + _PENALTY * weights[1:].square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return (features @ weights[1:] + weights[0]).detach()


def _weights(network: Nes2NetModel) -> dict[int, float]:
    """Returns the weights of a weighted sum by layer; none for a bare encoder or another aggregation."""
    if not isinstance(network.aggregation, WeightedSum):
        return {}
    weights = network.aggregation.layer_weights.detach().softmax(0).tolist()
    return dict(zip(network.config.encoder_layers or range(len(weights)), weights, strict=True))
