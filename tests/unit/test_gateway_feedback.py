"""A token stands for one answer, cannot be made up, counts once, and truth is counted against what was said."""

import base64
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.credentials import ensure_secret
from serving.errors import InvalidInput, NotFound, RetryableError, Unauthorized
from serving.gateway.feedback import FeedbackLimits, Token, TokenSigner, Told, UsedTokens, read_truth, share_right
from serving.gateway.ledger import Ledger
from serving.gateway.pairing import Pairing

KEY = b"k" * 32
LIMITS = FeedbackLimits()


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def signer(clock: Clock | None = None, key: bytes = KEY) -> TokenSigner:
    return TokenSigner(key, LIMITS, now=clock or Clock())


def sign(signer: TokenSigner, classes: Sequence[int] = (3,)) -> Token:
    token = signer.sign("digits", "rel-1@us-east", classes)
    assert token is not None
    return token


@given(st.lists(st.integers(0, 99_999), min_size=1, max_size=50), st.text(min_size=1, max_size=50))
def test_a_token_says_what_was_predicted_and_by_whom(classes: list[int], backend: str) -> None:
    token = signer().sign("digits", backend, classes)
    assert token is not None
    told = signer().read(token.text)
    assert (told.model, told.backend_id, list(told.classes)) == ("digits", backend, classes)
    assert (told.nonce, told.issued_at) == (token.nonce, 1_000_000)


def test_no_two_tokens_are_alike_and_many_rows_get_none() -> None:
    mine = signer()
    assert len({sign(mine).text for _ in range(1000)}) == 1000
    assert mine.sign("digits", "b", [1] * 1024) is not None
    assert mine.sign("digits", "b", [1] * 1025) is None
    assert mine.sign("digits", "b", []) is None


def test_a_token_fits_a_header_of_8_kib_whatever_it_names() -> None:
    token = signer().sign("m" * 100, "b" * 300, [99_999] * 1024)
    assert token is not None
    assert len(token.text) < 8000
    assert token.text.isascii()


def test_every_byte_of_a_token_is_signed() -> None:
    text = sign(signer()).text
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    for index in range(len(raw)):
        forged = bytearray(raw)
        forged[index] ^= 1
        with pytest.raises(Unauthorized):
            signer().read(base64.urlsafe_b64encode(bytes(forged)).decode().rstrip("="))


def test_another_regions_token_is_not_ours() -> None:
    with pytest.raises(Unauthorized, match="not signed by this region"):
        signer().read(sign(signer(key=b"x" * 32)).text)


@pytest.mark.parametrize("text", ["", "a", "mine", "!" * 100, "\u00e9" * 100, "A" * 20_000, "A" * 41, "a b" * 40, "="])
def test_what_is_no_token_is_malformed(text: str) -> None:
    with pytest.raises(InvalidInput, match="token is malformed"):
        signer().read(text)


def test_truth_may_come_days_later_but_not_for_ever_and_not_from_the_future() -> None:
    clock = Clock()
    mine = signer(clock)
    token = sign(mine).text
    clock.now += 6.9 * 86_400
    assert mine.read(token).model == "digits"
    clock.now += 0.2 * 86_400
    with pytest.raises(NotFound, match="expired"):
        mine.read(token)
    clock.now -= 8 * 86_400
    with pytest.raises(InvalidInput, match="another time"):
        mine.read(token)


def told(nonce: int, issued_at: int = 1_000_000) -> Told:
    return Told("digits", "b", (1,), issued_at, nonce.to_bytes(12, "big"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "feedback.sqlite"


def test_a_token_counts_once_also_after_a_restart(path: Path) -> None:
    used = UsedTokens(path, LIMITS, now=Clock())
    assert [used.take(told(1)), used.take(told(1)), used.take(told(2))] == [True, False, True]
    used.close()
    again = UsedTokens(path, LIMITS, now=Clock())
    assert [again.take(told(1)), again.take(told(2)), again.take(told(3))] == [False, False, True]
    again.close()


def test_of_two_gateways_that_are_told_at_once_one_counts(path: Path) -> None:
    gateways = [UsedTokens(path, LIMITS, now=Clock()) for _ in range(2)]
    counted: list[int] = []

    def take(used: UsedTokens) -> None:
        counted.extend(nonce for nonce in range(100) if used.take(told(nonce)))

    threads = [threading.Thread(target=take, args=(used,)) for used in gateways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counted) == list(range(100))
    for used in gateways:
        used.close()


def rows_in(path: Path) -> int:
    database = sqlite3.connect(path)
    (count,) = database.execute("SELECT count(*) FROM used").fetchone()
    database.close()
    return int(count)


def test_used_tokens_are_forgotten_when_they_would_have_expired(path: Path) -> None:
    clock = Clock()
    used = UsedTokens(path, LIMITS, now=clock)
    assert used.take(told(1))
    used.close()
    clock.now += LIMITS.life_s + 1
    again = UsedTokens(path, LIMITS, now=clock)
    assert again.take(told(2, int(clock.now)))
    assert rows_in(path) == 1
    again.close()


def test_what_must_be_forgotten_for_want_of_room_counts_no_more(path: Path) -> None:
    limits = FeedbackLimits(max_used=100)
    used = UsedTokens(path, limits, now=Clock())
    assert all(used.take(told(nonce, 999_000 + nonce)) for nonce in range(150))
    used.close()
    again = UsedTokens(path, limits, now=Clock())
    assert again.take(told(500, 999_999))
    assert rows_in(path) <= 100
    # Neither those that were forgotten, nor new ones of their age.
    assert [again.take(told(nonce, 999_000 + nonce)) for nonce in range(150)] == [False] * 150
    assert again.take(told(777, 999_001)) is False
    again.close()


def test_a_file_that_is_no_database_is_set_aside_and_older_tokens_count_no_more(path: Path) -> None:
    path.write_bytes(b"rubbish" * 1000)
    used = UsedTokens(path, LIMITS, now=Clock())
    assert used.take(told(1, 999_999)) is False
    assert used.take(told(2, 1_000_001)) is True
    used.close()
    assert path.with_suffix(".unreadable.sqlite").exists()


def test_what_cannot_be_noted_does_not_count(tmp_path: Path) -> None:
    used = UsedTokens(tmp_path / "nowhere" / "feedback.sqlite", LIMITS, now=Clock())
    with pytest.raises(RetryableError, match="cannot be noted"):
        used.take(told(1))


def test_the_key_is_made_once_and_only_ours_to_read(tmp_path: Path) -> None:
    path = tmp_path / "region" / "feedback.key"
    key = ensure_secret(path)
    assert (len(key), ensure_secret(path)) == (32, key)
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"")
    with pytest.raises(InvalidInput, match="holds no key"):
        ensure_secret(path)


def test_truth_comes_as_class_names_or_indices() -> None:
    assert read_truth(["dog", 0, "cat"], 3, ["cat", "dog"]) == [1, 0, 0]
    assert read_truth([1, 1, 1], 3, []) == [1, 1, 1]
    assert share_right([1, 0, 1], [1, 0, 0]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("labels", [["dog"], ["dog", "mouse"], ["dog", 2], ["dog", True], ["dog", -1], ["dog", None]])
def test_truth_that_does_not_fit_is_refused(labels: list[object]) -> None:
    with pytest.raises(InvalidInput, match="label"):
        read_truth(labels, 2, ["cat", "dog"])


@pytest.mark.parametrize("label_first", [True, False])
def test_a_pair_is_noted_when_both_predictions_and_the_label_are_known(label_first: bool) -> None:
    ledger = Ledger()
    pairing = Pairing(ledger, LIMITS, Clock())

    def compare(nonce: bytes) -> Callable[[], None]:
        return lambda: pairing.compared(nonce, [7, 2], [1, 2])

    def label(nonce: bytes, truth: list[int]) -> Callable[[], None]:
        return lambda: pairing.labelled(nonce, truth)

    for nonce, truth in ((b"1", [7, 7]), (b"2", [1, 2]), (b"3", [5, 2])):
        pairing.expect(nonce, "m", "new")
        steps = [compare(nonce), label(nonce, truth)]
        for step in reversed(steps) if label_first else steps:
            step()
    counters = ledger.snapshot("m").of("new")
    assert (counters.pairs, counters.won, counters.lost) == (3, 0.5, 0.5)
    assert len(pairing) == 0


def test_what_waits_for_its_other_half_is_bounded_in_number_and_age() -> None:
    clock, ledger = Clock(), Ledger()
    pairing = Pairing(ledger, FeedbackLimits(max_pairs=10, pair_life_s=60), clock)
    for nonce in range(50):
        pairing.expect(bytes([nonce]), "m", "new")
    assert len(pairing) == 10
    clock.now += 61
    pairing.compared(bytes([49]), [1], [1])
    pairing.expect(b"late", "m", "new")
    assert len(pairing) == 1
    pairing.forget(b"late")
    pairing.labelled(b"late", [1])
    pairing.compared(b"never", [1], [1])
    assert ledger.snapshot("m").of("new").pairs == 0
