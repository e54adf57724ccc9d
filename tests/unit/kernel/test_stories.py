"""What leaders remember of steps is bounded, in steps and in moments, and says how far it reaches."""

from admission_story import ready, step_id

from saga.contract.ids import NO_WORKER, RootId
from saga.contract.messages import MAX_MESSAGE_BYTES, WhyAsk, encode
from saga.kernel.stories import MAX_MOMENTS, MOST_TOLD, Stories


def test_the_oldest_steps_are_forgotten_first_and_the_answer_says_how_far_it_goes_back():
    stories = Stories("placement", most=3)
    stories.leads(5.0)
    for number in range(5):
        stories.begin(ready(number), 10.0 + number)

    known, forgotten = (stories.answer(WhyAsk(step_id=step_id(n)), 7, 20.0) for n in (4, 1))

    assert [step.step_id for step in known.steps] == [step_id(4)]
    assert known.steps[0].heard_s == 6.0
    assert forgotten.steps == ()
    assert (forgotten.remembered, forgotten.oldest_s, forgotten.leading_s) == (3, 8.0, 15.0)


def test_a_story_without_end_keeps_its_beginning_and_its_end():
    story = Stories("placement").begin(ready(1), 0.0)
    for number in range(100):
        story.add(f"moment {number}", float(number), 0, NO_WORKER)

    told = story.told(100.0)

    assert len(told.moments) == MAX_MOMENTS
    assert (told.moments[0].what, told.moments[-1].what) == ("moment 0", "moment 99")


def test_what_is_not_known_is_left_out():
    story = Stories("placement").begin(ready(1), 0.0)
    story.add("granted", 1.5, 0, NO_WORKER, {"waited": "", "left_tokens": -1, "expected_tokens": 0})

    assert story.told(2.0).moments[0].facts == {"expected_tokens": 0}


def test_a_workflow_answers_with_its_newest_steps_in_one_message():
    stories = Stories("placement")
    for number in range(60):
        story = stories.begin(ready(number, "t/w"), float(number))
        for _ in range(MAX_MOMENTS):
            story.add("granted", 1.0, 0, NO_WORKER, {"reason": "r" * 64, "first": "t/" * 60, "cost_s": 1.5})

    told = stories.answer(WhyAsk(root=RootId("t/w"), most=1_000), 7, 60.0)

    assert len(told.steps) == MOST_TOLD
    assert told.more
    assert told.steps[-1].step_id == step_id(59)
    assert len(encode(told)) < MAX_MESSAGE_BYTES
    assert stories.answer(WhyAsk(root=RootId("t/other")), 7, 60.0).steps == ()
