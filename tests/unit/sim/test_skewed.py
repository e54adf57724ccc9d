"""The workload of skewed tasks."""

from saga.sim.adversarial import Adversarial


def test_of_skewed_tasks_a_tenth_has_half_of_all_steps_and_most_begin_alike():
    workload = Adversarial("skewed", 1, 32_768, 16)
    tasks = [workload.draw(number) for number in range(400)]
    steps = [len(task.agents[0].steps) for task in tasks]
    giants = [count for count, task in zip(steps, tasks, strict=True) if task.agent_class == "giant"]
    firsts = [workload.pages(n, 0).advance(0, task.agents[0].steps[0])[0][:8] for n, task in enumerate(tasks)]

    assert 0.05 < len(giants) / len(tasks) < 0.15
    assert 0.35 < sum(giants) / sum(steps) < 0.65
    assert 0.7 < max(map(firsts.count, set(firsts))) / len(tasks) < 0.9
