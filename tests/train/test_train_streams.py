"""Streams: the order is the seed's, nothing is lost or repeated, positions go on."""

from __future__ import annotations

import json

import pytest

from kit.train.streams import DROP, Stream, Streams, split


def drawn(stream, batches):
    return [stream.take() for _ in range(batches)]


def flat(batches):
    return [item for batch in batches for item in batch]


def test_an_epoch_gives_every_item_once_in_an_order_of_its_own():
    stream = Stream("forget", list(range(12)), 4, seed=0)
    first, second = flat(drawn(stream, 3)), flat(drawn(stream, 3))
    assert sorted(first) == sorted(second) == list(range(12))
    assert list(range(12)) != first != second


def test_seed_and_name_decide_the_order():
    def order(name, seed):
        return flat(drawn(Stream(name, range(30), 5, seed=seed), 6))

    assert order("forget", 0) == order("forget", 0)
    assert order("forget", 0) != order("forget", 1)
    assert order("forget", 0) != order("retain", 0)


def test_without_shuffling_the_order_is_the_data_sets():
    stream = Stream("pile", range(5), 3, seed=0, shuffle=False)
    assert drawn(stream, 3) == [[0, 1, 2], [3, 4, 0], [1, 2, 3]]
    assert stream.epoch == 9 / 5


def test_the_rest_of_an_epoch_can_be_dropped():
    stream = Stream("pile", range(5), 2, seed=0, shuffle=False, tail=DROP)
    assert drawn(stream, 3) == [[0, 1], [2, 3], [0, 1]]
    shuffled = Stream("pile", range(5), 2, seed=0, tail=DROP)
    epochs = [flat(drawn(shuffled, 2)) for _ in range(20)]
    assert all(len(set(epoch)) == 4 for epoch in epochs)
    assert set(flat(epochs)) == set(range(5))


def test_positions_go_through_json_and_on_in_the_middle_of_an_epoch():
    def make():
        return Streams(
            Stream("adversary", range(10), 3, seed=1), Stream("retain", range(7), 2, seed=1)
        )

    whole, first, resumed = make(), make(), make()
    expected = [(whole["adversary"].take(), whole["retain"].take()) for _ in range(6)]
    for _ in range(4):
        first["adversary"].take()
        first["retain"].take()
    resumed.restore(json.loads(json.dumps(first.positions())))
    after = [(resumed["adversary"].take(), resumed["retain"].take()) for _ in range(2)]
    assert after == expected[4:]


def test_positions_of_other_data_are_refused():
    stream = Stream("retain", range(10), 2, seed=1)
    with pytest.raises(ValueError, match="saved with items 10, now 11"):
        Stream("retain", range(11), 2, seed=1).restore(stream.position)
    with pytest.raises(ValueError, match="saved with seed 1, now 2"):
        Stream("retain", range(10), 2, seed=2).restore(stream.position)
    with pytest.raises(ValueError, match="saved streams forget; now there are retain"):
        Streams(stream).restore({"forget": stream.position})


def test_streams_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="0 items"):
        Stream("retain", [], 2, seed=0)
    with pytest.raises(ValueError, match="do not fill batches of 4"):
        Stream("retain", range(3), 4, seed=0, tail=DROP)
    with pytest.raises(ValueError, match="tail is"):
        Stream("retain", range(3), 2, seed=0, tail="cut")
    stream = Stream("retain", range(3), 2, seed=0)
    with pytest.raises(ValueError, match="two streams of one name"):
        Streams(stream, stream)
    with pytest.raises(ValueError, match="no stream 'forget'; there are retain"):
        Streams(stream)["forget"]


def test_a_renewed_stream_is_a_new_one_of_other_items():
    stream = Stream("forget", range(5), 2, seed=3)
    stream.take()
    stream.renew(range(10, 17))
    fresh = Stream("forget", range(10, 17), 2, seed=3)
    assert [stream.take() for _ in range(9)] == [fresh.take() for _ in range(9)]
    assert stream.position == fresh.position
    with pytest.raises(ValueError, match="0 items do not fill"):
        stream.renew([])


def test_a_small_data_set_fills_a_large_batch():
    batch = Stream("forget", range(3), 7, seed=0).take()
    assert sorted(batch[:3]) == sorted(batch[3:6]) == [0, 1, 2]


def test_a_split_is_disjoint_complete_and_the_seeds():
    first, second = split(range(100), 0.8, seed=42)
    assert len(first) == 80
    assert sorted(first + second) == list(range(100))
    assert split(range(100), 0.8, seed=42) == (first, second)
    assert split(range(100), 0.8, seed=43) != (first, second)
    with pytest.raises(ValueError, match="leaves a part empty"):
        split(range(3), 0.1, seed=0)
