"""From a bundle on disk to a model that answers: verify, load, check parity, warm up, measure.

It knows the bundle format through its owner, `stratified_models.bundle`, and the torch engine; no wire, no
queue. Each step is announced before it begins, so that a slow start explains itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.costs import CostModel
from serving.encoding import Encoder, TokenizerEncoder
from serving.engines.base import Engine
from serving.errors import BadStore
from serving.source import Announce, Found, Loaded, Store
from serving.store import open_store
from serving.types import Domain, EngineItem, ModelCard, ModelVersion
from serving.warmup import best_batch_tokens, seed_costs
from stratified_models.bundle import Bundle, check_parity, load_model, read_bundle
from stratified_models.errors import ModelError

UNMEASURED = 1000.0  # tokens a second, until the warm-up has measured
PROBE = EngineItem(ids=(1, 1, 1, 1))


@dataclass(frozen=True, slots=True)
class BundleSource:
    """The real source: bundles on disk, behind the torch engine."""

    root: Path
    model: str
    device: str
    threads: int
    clock: Callable[[], float]

    def open(self) -> Store:
        """See `Source.open`."""
        return open_store(self.root, model=self.model)

    def load(self, found: Found, announce: Announce) -> Loaded:
        """See `Source.load`."""
        return load(found.path, device=self.device, threads=self.threads, clock=self.clock, announce=announce)


def load(path: Path, *, device: str, threads: int, clock: Callable[[], float], announce: Announce) -> Loaded:
    """Blocking, for seconds; raises `BadStore` when the bundle is not what its manifest says, or does not
    run.
    """
    started = clock()
    try:
        announce("verifying the files")
        bundle = read_bundle(path, verify=True)
        announce("loading the model")
        encoder = _encoder(bundle)
        engine = _engine(bundle, device=device, threads=threads, announce=announce)
    except (ModelError, OSError) as error:
        raise BadStore(f"{path}: {error}") from error
    announce("warming up")
    costs, longest = CostModel(initial=UNMEASURED), bundle.manifest.max_length
    seed_costs(engine, costs, max_tokens=longest, clock=clock)
    batch_tokens = best_batch_tokens(engine, max_tokens=longest, clock=clock)
    strata = len(engine.run([PROBE])[0].occupancy)
    card = card_of(bundle, engine=engine, strata=strata, load_seconds=clock() - started)
    return Loaded(card, encoder, engine, costs, batch_tokens)


def card_of(bundle: Bundle, *, engine: Engine, strata: int, load_seconds: float) -> ModelCard:
    """What the manifest says, in the words of the service."""
    manifest = bundle.manifest
    return ModelCard(
        version=ModelVersion(manifest.variant, manifest.version, bundle.sha256),
        labels=tuple(manifest.labels),
        domains=tuple(Domain(domain.name, tuple(domain.labels), domain.share) for domain in manifest.domains),
        max_tokens=manifest.max_length,
        temperature=manifest.temperature,
        out_of_domain_threshold=manifest.out_of_domain.threshold,
        strata=strata,
        engine=engine.name,
        precision=engine.precision,
        created=manifest.created,
        metrics=dict(flat_numbers(manifest.metrics)),
        load_seconds=load_seconds,
    )


def flat_numbers(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested mappings, by dotted path; everything else is left out."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat_numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)


def _encoder(bundle: Bundle) -> Encoder:
    from stratified_models import load_tokenizer

    tokenizer = load_tokenizer(bundle.path, max_length=bundle.manifest.max_length)
    return TokenizerEncoder(
        tokenizer.backend_tokenizer,
        max_tokens=bundle.manifest.max_length,
        special_ids=tokenizer.all_special_ids,
    )


def _engine(bundle: Bundle, *, device: str, threads: int, announce: Announce) -> Engine:
    import torch

    from serving.engines.torch import TorchEngine, choose_device
    from stratified_models import load_tokenizer

    torch.set_num_threads(threads)
    model = load_model(bundle)
    announce("checking parity")
    check_parity(bundle, model, load_tokenizer(bundle.path, max_length=bundle.manifest.max_length))
    try:
        return TorchEngine(model, device=choose_device(device))
    except RuntimeError as error:
        raise BadStore(f"device {device!r} cannot be used ({error}); set --device cpu or auto") from None
