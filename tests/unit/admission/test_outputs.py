from saga.admission.outputs import CLAIM_MEANS, FIRST_MEAN_TOKENS, OutputLengths


def learnt(*output_tokens: int) -> OutputLengths:
    outputs = OutputLengths()
    for tokens in output_tokens:
        outputs.learn(tokens)
    return outputs


def test_before_the_first_answer_a_guess_stands_in():
    assert learnt().expected_tokens(100_000) == FIRST_MEAN_TOKENS


def test_a_few_answers_outweigh_the_guess_and_many_are_a_moving_mean():
    assert learnt(*[20] * 40).expected_tokens(100_000) < 50
    assert learnt(*[20] * 400, *[500] * 200).expected_tokens(100_000) > 450


def test_nothing_beyond_the_clients_limit_is_charged_or_set_aside():
    assert learnt().expected_tokens(16) == learnt().claim_tokens(16) == 16


def test_more_than_the_mean_is_set_aside_because_answers_differ():
    assert learnt(*[300] * 1_000).claim_tokens(100_000) in {int(CLAIM_MEANS * 300), int(CLAIM_MEANS * 300) + 1}
