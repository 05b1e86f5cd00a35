"""The order of samples: the same for any world size, every sample once per epoch, resumable anywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidInput
from tasks.data.sampler import Sampler, steps_for

SAMPLERS = st.builds(
    Sampler, samples=st.integers(1, 200), global_batch=st.sampled_from([1, 2, 6, 12, 24]), seed=st.integers(0, 2**31)
)


@given(sampler=SAMPLERS, step=st.integers(0, 50), data=st.data())
def test_any_world_size_sees_the_same_global_batch(sampler: Sampler, step: int, data: st.DataObject) -> None:
    divisors = [n for n in range(1, sampler.global_batch + 1) if sampler.global_batch % n == 0]
    world_size = data.draw(st.sampled_from(divisors))
    shares = [sampler.rank_indices(step, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert np.concatenate(shares).tolist() == sampler.global_indices(step).tolist()


@given(sampler=SAMPLERS, epochs=st.integers(1, 3))
def test_every_sample_occurs_once_per_epoch(sampler: Sampler, epochs: int) -> None:
    steps = steps_for(sampler.samples, global_batch=sampler.global_batch, epochs=epochs)
    order = np.concatenate([sampler.global_indices(step) for step in range(steps)])
    for epoch in range(epochs):
        seen = order[epoch * sampler.samples : (epoch + 1) * sampler.samples]
        assert sorted(seen.tolist()) == list(range(sampler.samples))


@given(sampler=SAMPLERS, step=st.integers(0, 30))
def test_a_resumed_sampler_goes_on_with_the_same_order(sampler: Sampler, step: int) -> None:
    state = sampler.state(step)
    again = Sampler(samples=state["samples"], global_batch=state["global_batch"], seed=state["seed"])
    again.check_state(state, step=step)
    assert again.global_indices(state["next_step"]).tolist() == sampler.global_indices(step).tolist()


def test_epochs_are_in_different_orders_and_seeds_too() -> None:
    first = Sampler(samples=100, global_batch=100, seed=1)
    other = Sampler(samples=100, global_batch=100, seed=2)
    assert first.global_indices(0).tolist() != first.global_indices(1).tolist()
    assert first.global_indices(0).tolist() != other.global_indices(0).tolist()


def test_state_of_other_data_is_refused() -> None:
    sampler = Sampler(samples=100, global_batch=10, seed=1)
    with pytest.raises(InvalidInput, match="another sample order"):
        sampler.check_state(Sampler(samples=99, global_batch=10, seed=1).state(5), step=5)


def test_world_size_must_divide_the_batch() -> None:
    with pytest.raises(InvalidInput, match="divisor of 10"):
        Sampler(samples=100, global_batch=10, seed=1).rank_indices(0, rank=0, world_size=3)
