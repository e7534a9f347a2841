"""From a bundle on disk to a model that answers: verify, load, check parity, warm up, measure.

It knows the bundle format through its owner, `stratified_models.bundle`, and no wire and no queue; which
engine computes is decided in `serving.engines.choice`. Each step is announced before it begins, so that a
slow start explains itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from serving.costs import CostModel
from serving.encoding import Encoder, TokenizerEncoder
from serving.engines.choice import Choice, Wishes, choose_engine
from serving.errors import BadStore
from serving.source import Announce, Found, Loaded, Store
from serving.store import look_again, open_store
from serving.types import Domain, EngineItem, ModelCard, ModelVersion
from serving.warmup import best_batch_tokens, best_padding_tokens, seed_costs
from stratified_models.bundle import Bundle, read_bundle
from stratified_models.errors import ModelError

UNMEASURED = 1000.0  # tokens a second, until the warm-up has measured
PROBE = EngineItem(ids=(1, 1, 1, 1))


@dataclass(frozen=True, slots=True)
class BundleSource:
    """The real source: bundles on disk."""

    root: Path
    model: str
    wishes: Wishes
    clock: Callable[[], float]

    def open(self) -> Store:
        """See `Source.open`."""
        return open_store(self.root, model=self.model)

    def look(self) -> Store:
        """See `Source.look`."""
        return look_again(self.root, model=self.model)

    def load(self, found: Found, announce: Announce) -> Loaded:
        """See `Source.load`."""
        return load(found.path, wishes=self.wishes, clock=self.clock, announce=announce)


def load(path: Path, *, wishes: Wishes, clock: Callable[[], float], announce: Announce) -> Loaded:
    """Blocking, for seconds; raises `BadStore` when the bundle is not what its manifest says, or does not
    run.
    """
    started = clock()
    try:
        announce("verifying the files")
        bundle = read_bundle(path, verify=True)
        _refuse_other_score(bundle)
        announce("loading the model")
        encoder = _encoder(bundle)
        choice = choose_engine(bundle, encoder, wishes, clock=clock, announce=announce)
    except (ModelError, OSError) as error:
        raise BadStore(f"{path}: {error}") from error
    announce("warming up")
    engine = choice.engine
    costs, longest = CostModel(initial=UNMEASURED), bundle.manifest.max_length
    seed_costs(engine, costs, max_tokens=longest, clock=clock)
    batch_tokens = best_batch_tokens(engine, max_tokens=longest, clock=clock)
    padding_tokens = best_padding_tokens(engine, max_tokens=longest, clock=clock)
    strata = len(engine.run([PROBE])[0].occupancy)
    card = card_of(bundle, choice=choice, strata=strata, load_seconds=clock() - started)
    return Loaded(card, encoder, engine, costs, batch_tokens, padding_tokens)


def card_of(bundle: Bundle, *, choice: Choice, strata: int, load_seconds: float) -> ModelCard:
    """What the manifest says, in the words of the service, with what was measured to choose the engine."""
    manifest, engine = bundle.manifest, choice.engine
    measured = {f"engine_seconds.{name}": seconds for name, seconds in choice.seconds.items()}
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
        metrics={**dict(flat_numbers(manifest.metrics)), **measured},
        engine_seconds=dict(choice.seconds),
        load_seconds=load_seconds,
    )


def flat_numbers(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested mappings, by dotted path; everything else is left out."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat_numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)


def _refuse_other_score(bundle: Bundle) -> None:
    """A threshold says nothing of another score: the manifest names the one that the model gives."""
    given = _config(bundle).get("unknown_score", "energy")
    score = bundle.manifest.out_of_domain.score
    if score != given:
        raise BadStore(
            f"{bundle.path}: the threshold is for the score {score!r}, and the model gives {given!r}; "
            "write the bundle again"
        )


def _config(bundle: Bundle) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((bundle.path / "config.json").read_text(encoding="utf-8"))
    return tree


def _encoder(bundle: Bundle) -> Encoder:
    """From tokenizer.json, as transformers reads it too; which ids are special, the model's own list says."""
    return TokenizerEncoder(
        Tokenizer.from_file(str(bundle.path / "tokenizer.json")),
        max_tokens=bundle.manifest.max_length,
        special_ids=_config(bundle).get("special_token_ids", ()),
    )
