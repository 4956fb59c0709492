"""Tests of queue_model; run by ctest with the standard library alone."""

import random
import sys
import unittest

import queue_model

ONE, TWO = [10.0, 100.0], [6.0, 60.0]


class Gaps(random.Random):
    def lognormal(self, mu, sigma, count):
        return [self.lognormvariate(mu, sigma) for _ in range(count)]


class QueueModelTest(unittest.TestCase):
    def assert_times(self, actual, expected):
        self.assertEqual(len(actual), len(expected))
        for a, e in zip(actual, expected):
            self.assertAlmostEqual(a, e)

    def test_a_job_alone_takes_both_cores(self):
        self.assert_times(queue_model.ideal([3, 50], [0, 0], ONE, TWO, "fifo"), [6, 6])

    def test_two_jobs_take_a_core_each_and_the_one_that_is_left_widens(self):
        # The long one has a tenth done after 10, the rest takes 0.9 of its two-core time.
        self.assert_times(queue_model.ideal([0, 0], [0, 1], ONE, TWO, "fifo"), [10, 64])

    def test_srpt_lets_a_short_job_overtake_and_fifo_does_not(self):
        at, which = [0, 0, 5], [1, 1, 0]
        self.assert_times(queue_model.ideal(at, which, ONE, TWO, "srpt")[2:], [10])
        self.assert_times(queue_model.ideal(at, which, ONE, TWO, "fifo"), [100, 100, 101])

    def test_stretch_lets_a_job_overtake_only_while_it_is_due_earlier(self):
        # Sixteen long jobs, due at 800, keep both cores busy until then. Short ones are due 80
        # after they come: one just before the long ones, one just after.
        at, which = [0] * 16 + [719, 721], [1] * 16 + [0, 0]
        latency = queue_model.ideal(at, which, ONE, TWO, "stretch")
        self.assert_times(latency[16:17], [10])
        self.assertGreater(latency[17], 79)

    def test_srpt_has_a_lower_mean_than_the_others(self):
        total = dict.fromkeys(("srpt", "stretch", "fifo"), 0.0)
        for seed in range(20):
            rng = Gaps(seed)
            which = queue_model.mixture({"a": 0.8, "b": 0.2}, 60, rng)
            at = [20 * t for t in queue_model.arrivals(60, 1.5, rng)]
            for policy in total:
                total[policy] += sum(queue_model.ideal(at, which, ONE, TWO, policy))
        self.assertLess(total["srpt"], total["stretch"])
        self.assertLess(total["stretch"], total["fifo"])

    def test_a_mixture_has_the_exact_shares(self):
        which = queue_model.mixture({"a": 0.5, "b": 0.26, "c": 0.24}, 10, random.Random(1))
        self.assertEqual([which.count(i) for i in range(3)], [5, 3, 2])


if __name__ == "__main__":
    sys.exit(unittest.main())
