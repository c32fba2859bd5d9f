"""Who is to blame for the end of the model's process, and for how long that is remembered."""

import pytest

from deeplens_streams.errors import UndecodableImage
from deeplens_streams.features.child.poison import PoisonRegistry, digest_of
from deeplens_streams.features.child.requests import PendingRequests, Request


async def sent(pending: PendingRequests, *pictures: bytes) -> list[Request]:
    requests = [pending.add({}, each, None) for each in pictures]
    for each in requests:
        each.sent = True
    return requests


async def test_who_was_being_decoded_is_tried_first() -> None:
    pending = PendingRequests()
    _, second, third = await sent(pending, b"1", b"2", b"3")
    pending.process_ended(hung=set(), decoding={third.number})
    assert pending.waiting()[0] is third
    assert second.suspicion  # it may have been the last to be decoded, or no picture's doing


async def test_who_takes_all_memory_alone_twice_is_told_so() -> None:
    pending = PendingRequests()
    (first,) = await sent(pending, b"1")
    for _ in range(2):
        assert not first.answer.done()
        first.sent = True
        pending.process_ended(hung=set(), decoding={first.number}, out_of_memory=True)
    with pytest.raises(UndecodableImage, match="more memory"):
        first.answer.result()


async def test_beside_one_that_hangs_nobody_is_suspected() -> None:
    pending = PendingRequests()
    first, second = await sent(pending, b"1", b"2")
    for _ in range(2):
        first.sent = second.sent = True
        pending.process_ended(hung={first.number}, decoding={first.number, second.number})
    with pytest.raises(UndecodableImage, match="busy"):
        first.answer.result()
    assert pending.waiting() == [second]
    assert not second.suspicion


async def test_of_several_that_hang_together_each_is_tried_alone() -> None:
    pending = PendingRequests()
    first, second, third = await sent(pending, b"1", b"2", b"3")
    hung = {first.number, second.number}
    for _ in range(2):
        first.sent = second.sent = third.sent = True
        pending.process_ended(hung=hung, decoding=hung)
    # One of them may have kept the interpreter: that is no reason to condemn the other.
    assert not first.answer.done()
    assert not second.answer.done()
    assert [first.suspicion, second.suspicion, third.suspicion] == [2, 2, 0]
    for _ in range(2):
        first.sent = True
        pending.process_ended(hung={first.number}, decoding={first.number})
    with pytest.raises(UndecodableImage, match="busy"):
        first.answer.result()
    assert not second.answer.done()


async def test_every_copy_of_a_poison_picture_has_the_verdict() -> None:
    pending = PendingRequests()
    (first,) = await sent(pending, b"1")
    later = pending.add({}, b"1", None)
    for _ in range(2):
        first.sent = True
        pending.process_ended(hung=set(), decoding=set())
    for each in (first, later):
        assert isinstance(each.answer.exception(), UndecodableImage)
    with pytest.raises(UndecodableImage, match="crash"):
        await pending.check(b"1")


async def test_one_that_is_answered_after_all_is_not_suspected_any_more() -> None:
    pending = PendingRequests()
    for _ in range(3):
        (request,) = await sent(pending, b"1")
        pending.process_ended(hung={request.number}, decoding=set())
        pending.answered({"id": request.number}, b"")
    assert await pending.check(b"1") is None


async def test_one_whose_caller_left_is_not_tried_again_and_still_counted() -> None:
    pending = PendingRequests()
    for _ in range(2):
        (request,) = await sent(pending, b"1")
        pending.leave(request)
        assert pending.in_hand() == [request]
        pending.process_ended(hung={request.number}, decoding={request.number})
        assert pending.waiting() == []
    with pytest.raises(UndecodableImage):
        await pending.check(b"1")


def test_suspects_are_bounded_and_the_longest_unseen_are_forgotten() -> None:
    suspects = PoisonRegistry(room=2)
    first, second, third = (digest_of(each) for each in (b"1", b"2", b"3"))
    for each in (first, first, second, second):
        suspects.strike(each, "It crashes.")
    with pytest.raises(UndecodableImage, match="It crashes"):
        suspects.check(first)
    suspects.strike(third, "It crashes.")
    assert len(suspects) == 2
    suspects.check(second)
    suspects.check(third)
    with pytest.raises(UndecodableImage):
        suspects.check(first)
