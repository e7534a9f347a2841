"""What counts as new in the store, and what is done about it."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from serving.engines.fake import FakeSource, fake_card
from serving.errors import BadStore
from serving.source import Found, Store
from serving.watch import Watcher
from tests.serving.conftest import Running, Start
from tests.serving.test_fleet import NEW, OLD, answered_by, states
from tests.serving.test_lane import until


class Shelf(FakeSource):
    """A fake store that counts loads, and whose next look a test decides."""

    def __init__(self, *names: str) -> None:
        super().__init__(*names)
        self.loads = 0
        self.gone: Exception | None = None
        self.stamp: tuple[tuple[str, int, int], ...] = ()
        self.instead: dict[str, Found] = {}

    def look(self) -> Store:
        if self.gone:
            raise self.gone
        store = self.open()
        variants = {name: replace(found, stamp=self.stamp) for name, found in store.variants.items()}
        return replace(store, variants={**variants, **self.instead})

    def load(self, found, announce):  # type: ignore[no-untyped-def]  # as the base class
        self.loads += 1
        return super().load(found, announce)


async def watched(start: Start, *names: str, **settings: object) -> tuple[Running, Shelf, Watcher]:
    shelf = Shelf(*(names or ("none", "routing")))
    running = await start(shelf, watch_seconds=0, **settings)
    return running, shelf, Watcher(running.app.fleet, running.app.metrics, selected=shelf.selected)


def swaps(running: Running) -> dict[str, float]:
    outcomes = ("swapped", "rejected", "missing", "failed")
    found = {name: running.sample("stratified_model_swaps_total", outcome=name) for name in outcomes}
    return {name: value for name, value in found.items() if value}


async def test_the_same_bundle_is_left_alone(start: Start) -> None:
    running, shelf, watcher = await watched(start)
    shelf.stamp = (("model.safetensors", 1, 2),)
    await watcher.look()
    assert (shelf.loads, swaps(running)) == (1, {})


async def test_a_new_bundle_is_swapped_in_and_a_former_one_back(start: Start) -> None:
    running, shelf, watcher = await watched(start)
    for sha256 in (NEW, OLD):
        shelf.publish(fake_card(sha256=sha256))
        await watcher.look()
        assert await answered_by(running) == sha256
    assert swaps(running) == {"swapped": 2}


async def test_a_broken_bundle_is_tried_again_only_when_its_files_change(start: Start) -> None:
    running, shelf, watcher = await watched(start)
    shelf.publish(fake_card(sha256=NEW))
    shelf.broken.add("none")
    for _ in range(3):
        await watcher.look()
    assert (shelf.loads, swaps(running)) == (2, {"rejected": 1})
    assert await answered_by(running) == OLD
    shelf.broken.clear()
    await watcher.look()
    assert shelf.loads == 2
    shelf.stamp = (("model.safetensors", 1, 2),)
    await watcher.look()
    assert await answered_by(running) == NEW
    assert (await states(running))["none"][1] == ""


async def test_a_model_that_failed_at_the_start_is_loaded_when_its_files_change(start: Start) -> None:
    shelf = Shelf("none", "routing")
    shelf.broken.add("routing")
    running = await start(shelf, watch_seconds=0, load="all")
    shelf.broken.clear()
    shelf.stamp = (("model.safetensors", 1, 2),)
    await Watcher(running.app.fleet, running.app.metrics, selected="").look()
    assert await answered_by(running, "routing") == OLD


@pytest.mark.parametrize("gone", [BadStore("holds no bundle"), OSError(5, "Input/output error")])
async def test_a_disk_that_is_gone_is_counted_once_and_looked_at_again(start: Start, gone: Exception) -> None:
    running, shelf, watcher = await watched(start)
    shelf.gone = gone
    for looks in range(4):
        await watcher.look()
        assert swaps(running) == ({"missing": 1} if looks else {}), "a bundle in the making is not missed"
    assert await answered_by(running) == OLD
    shelf.gone = None
    shelf.publish(fake_card(sha256=NEW))
    await watcher.look()
    assert await answered_by(running) == NEW


async def test_what_failed_before_the_disk_was_gone_is_tried_again_after(start: Start) -> None:
    running, shelf, watcher = await watched(start)
    shelf.publish(fake_card(sha256=NEW))
    shelf.broken.add("none")
    await watcher.look()
    shelf.broken.clear()
    shelf.gone = OSError(5, "Input/output error")
    await watcher.look()
    shelf.gone = None
    await watcher.look()
    assert await answered_by(running) == NEW


async def test_a_deleted_variant_answers_on(start: Start) -> None:
    running, shelf, watcher = await watched(start, load="all")
    del shelf.cards["routing"]
    for _ in range(3):
        await watcher.look()
    assert await answered_by(running, "routing") == OLD
    assert swaps(running) == {"missing": 1}


async def test_another_variant_in_the_place_of_a_loaded_one_is_refused(start: Start) -> None:
    running, shelf, watcher = await watched(start, load="all")
    place = Path("fake") / "routing"
    del shelf.cards["routing"]
    shelf.instead = {"moe": Found("moe", place, "1", NEW)}
    for _ in range(3):
        await watcher.look()
    assert swaps(running) == {"rejected": 1}
    assert "now holds 'moe' instead of 'routing'" in (await states(running))["routing"][1]


async def test_a_manifest_that_cannot_be_read_is_refused(start: Start) -> None:
    running, shelf, watcher = await watched(start)
    shelf.instead = {"none": Found("none", Path("fake") / "none", error="manifest.json is cut")}
    for _ in range(3):
        await watcher.look()
    assert swaps(running) == {"rejected": 1}
    assert await answered_by(running) == OLD


async def test_a_new_selection_becomes_the_default_once(start: Start) -> None:
    running, shelf, watcher = await watched(start)
    shelf.selected = "routing"
    await watcher.look()
    assert running.app.models.default == "routing"
    await running.app.fleet.set_default("none")
    await watcher.look()
    assert running.app.models.default == "none", "what an operator set stands"


async def test_a_selection_that_cannot_be_used_is_tried_again_when_its_files_change(start: Start) -> None:
    running, shelf, watcher = await watched(start)
    shelf.selected = "routing"
    shelf.broken.add("routing")
    for _ in range(3):
        await watcher.look()
    assert (running.app.models.default, swaps(running)) == ("none", {"rejected": 1})
    shelf.broken.clear()
    shelf.stamp = (("model.safetensors", 1, 2),)
    await watcher.look()
    await watcher.look()
    assert running.app.models.default == "routing"


async def test_a_loaded_selection_with_other_labels_is_refused_once(start: Start) -> None:
    shelf = Shelf("none", "routing")
    shelf.publish(replace(fake_card("routing"), labels=("bad", "good", "so so")))
    running = await start(shelf, watch_seconds=0, load="all")
    shelf.selected = "routing"
    watcher = Watcher(running.app.fleet, running.app.metrics, selected="none")
    for _ in range(3):
        await watcher.look()
    assert (running.app.models.default, swaps(running)) == ("none", {"rejected": 1})


async def test_a_selection_without_a_bundle_is_missed_once(start: Start) -> None:
    running, shelf, watcher = await watched(start)
    shelf.selected = "moe"
    for _ in range(3):
        await watcher.look()
    assert swaps(running) == {"missing": 1}
    shelf.publish(fake_card("moe"))
    await watcher.look()
    assert running.app.models.default == "moe"


async def test_variants_come_and_go_in_the_list(start: Start) -> None:
    running, shelf, watcher = await watched(start)
    del shelf.cards["routing"]
    shelf.publish(fake_card("moe"))
    await watcher.look()
    assert sorted(await states(running)) == ["moe", "none"]


async def test_the_server_looks_by_itself_and_a_bug_does_not_end_it(start: Start) -> None:
    shelf = Shelf("none")
    running = await start(shelf, watch_seconds=0.02)
    shelf.gone = RuntimeError("a bug")
    await asyncio.sleep(0.1)
    shelf.gone = None
    shelf.publish(fake_card(sha256=NEW))
    await until(lambda: bool(swaps(running)))
    assert await answered_by(running) == NEW


def test_a_store_on_disk_tells_stamps_and_the_selection(tmp_path: Path) -> None:
    from serving.store import look_again
    from tests.serving.bundles import copied

    root = copied(tmp_path)
    first = look_again(root)
    assert (first.selected, first.default) == ("routing", "routing")
    assert "model.safetensors" in {name for name, _, _ in first.variants["none"].stamp}
    (root / "none" / "config.json").touch()
    second = look_again(root)
    assert second.variants["none"] != first.variants["none"]
    assert second.variants["routing"] == first.variants["routing"]
    (root / "results.json").write_text(json.dumps({"selected": {"variant": "moe"}}))
    assert look_again(root).default == "moe", "its bundle may be in the making"
    assert look_again(root, model="none").selected == ""
    (root / "results.json").unlink()
    assert look_again(root).default == ""
    shutil.rmtree(root)
    with pytest.raises(BadStore):
        look_again(root)
