"""Annotators: the published example of Dawid and Skene, one step by hand, simulation, real votes; cycles by hand."""

import gzip
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rmlib.annotations import annotators
from rmlib.pairs import make_pairs
from rmlib.statistics import wilson_interval

# Dawid & Skene (1979), table 1: 45 patients, graded 1-4 three times by observer 1 and once by each of 2-5.
GRADES = """
1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343 1111111 2223212 1211111
1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111 2322222 1111111 1111111 1121121
1111111 3333233 1111111 2222222 2223232 4334343 2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111 2222222
"""
VOTES = {"a1": -1, "equal": 0, "a2": 1}


def votes_of(rows: Sequence[tuple[Any, Any, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["item", "annotator", "label"])


def simulated(confusion: np.ndarray, n_items: int, per_item: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Votes of annotators with these confusion matrices on items of equally frequent truths, and the truths."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(confusion.shape[1], size=n_items)
    rows = []
    for item, label in enumerate(truth):
        for who in rng.choice(len(confusion), size=per_item, replace=False):
            rows.append((item, f"w{who}", int(rng.choice(confusion.shape[2], p=confusion[who, label]))))
    return votes_of(rows), truth


def tournament(*wins: tuple[str, str], ties: Sequence[tuple[str, str]] = (), prompt: str = "which?") -> list[Any]:
    """One pair for each win (winner, loser) and tie; the winner is response 2 in every other pair."""
    rows = []
    for number, (winner, loser) in enumerate([*wins, *ties]):
        decided = number < len(wins)
        first, second = (loser, winner) if number % 2 else (winner, loser)
        preference = 0 if not decided else (1 + number % 3) * (1 if number % 2 else -1)
        rows.append(
            {
                "split": "train",
                "prompt": [{"role": "user", "content": prompt}],
                "response_1": first,
                "response_2": second,
                "preference": preference,
            }
        )
    return rows


def voted_table(votes: Sequence[Sequence[tuple[str | None, int]]]) -> Dataset:
    """One pair for each list of (annotator, preference)."""
    rows = []
    for number, entries in enumerate(votes):
        row = tournament(("one", "two"), prompt=f"question {number}")[0]
        rows.append(row | {"annotations": [{"annotator": who, "preference": value} for who, value in entries]})
    return make_pairs(rows, origin="test")


@pytest.fixture(scope="session")
def ukp(shared_data: Callable[[str], Path]) -> tuple[Dataset, pd.Series, pd.Series]:
    """Real votes on real pairs, the consensus as preference; the published gold by pair id and competence by worker."""
    folder = shared_data("ukpconvarg1")
    with gzip.open(folder / "arguments.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = {(row["topic"], row["id"]): row["text"] for row in map(json.loads, lines)}
    rows, gold, competence = [], {}, {}
    with gzip.open(folder / "pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        for pair in map(json.loads, lines):
            entries = [{"annotator": vote["worker"], "preference": VOTES[vote["value"]]} for vote in pair["votes"]]
            competence |= {vote["worker"]: float(vote["competence"]) for vote in pair["votes"]}
            prompt, sides = pair["topic"], [texts[pair["topic"], pair[side]] for side in ("arg1", "arg2")]
            row = {"split": "train", "prompt": [{"role": "user", "content": prompt}]}
            row |= {"response_1": sides[0], "response_2": sides[1]}
            row["preference"] = int(np.sign(sum(entry["preference"] for entry in entries)))
            rows.append(row | {"annotations": entries})
            gold[prompt, *sides] = VOTES.get(pair["gold"])
    pairs = make_pairs(rows, origin="ukpconvarg1")
    prompts = [prompt[0]["content"] for prompt in pairs["prompt"]]
    keys = zip(prompts, pairs["response_1"], pairs["response_2"], strict=True)
    known = pd.Series([gold[key] for key in keys], index=pairs["pair_id"][:], dtype=float)
    return pairs, known.dropna(), pd.Series(competence)


def test_the_published_example_of_dawid_and_skene(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotators, "SMOOTHING", 0)
    observers = [1, 1, 1, 2, 3, 4, 5]
    rows = [(p, o, int(g)) for p, row in enumerate(GRADES.split()) for o, g in zip(observers, row, strict=True)]
    posterior, quality = annotators.dawid_skene(votes_of(rows))
    assert posterior.shape == (45, 4) and quality.index.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(posterior.mean(), [0.40, 0.42, 0.11, 0.07], atol=0.005)  # their table 2
    first = [[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0], [0, 0.34, 0.66, 0], [0, 0, 0.56, 0.44]]
    np.testing.assert_allclose(confusion_of(votes_of(rows), posterior, 1), first, atol=0.006)


def confusion_of(votes: pd.DataFrame, posterior: pd.DataFrame, annotator: Any) -> np.ndarray:
    """`[true, given]`: how an annotator labels what the posterior takes for true."""
    own = votes[votes["annotator"] == annotator]
    counts = posterior.loc[own["item"]].groupby(own["label"].to_numpy()).sum().to_numpy().T
    return counts / counts.sum(axis=1, keepdims=True)


def test_one_step_from_the_shares_of_votes_by_hand(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(annotators, "SMOOTHING", 0)
    monkeypatch.setattr(annotators, "MAX_ITERATIONS", 1)
    votes = votes_of([("A", 1, 1), ("A", 2, 1), ("A", 3, 0), ("B", 1, 0), ("B", 2, 0), ("B", 3, 1)])
    posterior, quality = annotators.dawid_skene(votes)
    # Shares: A is 1 with 2/3, B with 1/3. So 1 and 2 are right with 2/3, 3 with 1/3, and both labels are as frequent.
    # Joint probability of A: 1/2 (1/3)^3 for truth 0, 1/2 (2/3)^3 for truth 1, together 9/54.
    np.testing.assert_allclose(posterior, [[1 / 9, 8 / 9], [8 / 9, 1 / 9]])
    assert "not converged after 1 iterations" in caplog.text and posterior.index.tolist() == ["A", "B"]
    np.testing.assert_allclose(quality["estimate"], [8 / 9, 8 / 9, 1 / 9])


def test_smoothing_adds_to_every_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotators, "MAX_ITERATIONS", 1)
    posterior, _ = annotators.dawid_skene(votes_of([("A", 1, 1), ("A", 2, 1), ("B", 1, 0), ("B", 2, 0)]))
    # Both are right with (1 + 1/2) / (1 + 1) = 3/4, so the odds of A are 9 to 1.
    np.testing.assert_allclose(posterior, [[0.1, 0.9], [0.9, 0.1]])


def test_known_confusion_matrices_are_recovered() -> None:
    good, fair, biased = 0.9, 0.7, np.array([[0.9, 0.1, 0.0], [0.5, 0.4, 0.1], [0.1, 0.3, 0.6]])
    even = [np.full((3, 3), (1 - p) / 2) + np.eye(3) * (p - (1 - p) / 2) for p in (good, fair, fair, 1 / 3)]
    confusion = np.array([*even, biased])
    votes, truth = simulated(confusion, n_items=4000, per_item=4, seed=0)
    posterior, quality = annotators.dawid_skene(votes)
    for annotator, expected in enumerate(confusion):
        np.testing.assert_allclose(confusion_of(votes, posterior, f"w{annotator}"), expected, atol=0.05)
    majority = votes.groupby("item")["label"].agg(lambda labels: labels.mode()[0])
    found = posterior.idxmax(axis=1).loc[range(4000)]
    assert (found == truth).mean() > (majority.loc[range(4000)] == truth).mean() + 0.03
    right = (votes["label"].to_numpy() == truth[votes["item"]]).astype(float)
    share = pd.Series(right).groupby(votes["annotator"]).mean()
    np.testing.assert_allclose(quality["estimate"].sort_index(), share, atol=0.04)


def test_the_order_of_votes_does_not_matter() -> None:
    confusion = np.random.default_rng(1).dirichlet([1.0] * 4, size=(12, 4)) * 0.5 + np.eye(4) * 0.5
    votes, _ = simulated(confusion, n_items=150, per_item=3, seed=2)
    fitted, turned = annotators.dawid_skene(votes), annotators.dawid_skene(votes.sample(frac=1, random_state=3))
    pd.testing.assert_frame_equal(turned.quality.sort_index(), fitted.quality.sort_index(), rtol=1e-6)
    np.testing.assert_allclose(turned.posterior.sort_index(), fitted.posterior, atol=1e-6)


def test_labels_far_apart_or_renamed_give_the_same_fit() -> None:
    votes, _ = simulated(np.full((4, 3, 3), 0.1) + np.eye(3) * 0.7, n_items=100, per_item=3, seed=4)
    fitted = annotators.dawid_skene(votes)
    renamed = annotators.dawid_skene(votes.assign(label=votes["label"].map({0: -3, 1: 0.5, 2: 100})))
    np.testing.assert_array_equal(renamed.posterior, fitted.posterior)
    assert renamed.posterior.columns.tolist() == [-3, 0.5, 100]


def test_one_label_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="every label is 1"):
        annotators.dawid_skene(votes_of([("A", "w1", 1), ("A", "w2", 1)]))


def test_the_table_of_annotators_counts_and_compares() -> None:
    votes = [[("ann", 1), ("bob", 1), ("cy", -2)], [("ann", -1), ("bob", 2), (None, 2)], [("ann", 3), ("cy", -100)]]
    table = annotators.annotator_table(voted_table(votes))
    assert table["annotations"].to_dict() == {"ann": 3, "bob": 2, "cy": 1}
    # ann: 1 of the 2 others on the first pair, none on the second, nobody left on the third.
    assert table["agreement"].to_dict() == {"ann": 0.25, "bob": 0.25, "cy": 0}
    assert table["n_shared"].to_dict() == {"ann": 2, "bob": 2, "cy": 1}
    z2, n, share = 1.959964**2, 2, 0.25  # Wilson (1927), with half a success of two
    centre, half = share + z2 / (2 * n), np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2)))
    expected = [(centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)]
    assert table.loc["ann", ["agreement_low", "agreement_high"]].tolist() == pytest.approx(expected)
    cy = wilson_interval(0, 1)
    assert table.loc["cy", ["agreement_low", "agreement_high"]].tolist() == pytest.approx([cy.low, cy.high])
    assert table["quality"].between(table["quality_low"], table["quality_high"]).all()
    alone = annotators.annotator_table(voted_table([[("ann", 1)], [("bob", -1)]]))
    assert alone["agreement"].isna().all() and alone["n_shared"].tolist() == [0, 0]
    with pytest.raises(ValueError, match="no annotation has both a preference and an annotator's id"):
        annotators.annotator_table(voted_table([[(None, 1)], [("ann", -100)]]))


def test_votes_of_pairs_carry_the_ids_of_pairs() -> None:
    pairs = voted_table([[("ann", 1)], [], [("ann", -100), ("bob", -3)]])
    votes = annotators.pair_votes(pairs)
    assert votes.to_numpy().tolist() == [[pairs["pair_id"][0], "ann", 1], [pairs["pair_id"][2], "bob", -3]]


def test_one_circle_and_one_order_by_hand() -> None:
    circle = tournament(("a", "b"), ("b", "c"), ("c", "a"))
    order = tournament(("a", "b"), ("b", "c"), ("a", "c"), prompt="another?")
    pairs = make_pairs([*circle, *order], origin="test")
    found = annotators.cycles(pairs)
    assert found.cyclic == wilson_interval(1, 2)
    assert found.transitive == wilson_interval(1, 4)  # a circle closes three chains, an order holds one
    assert found.table()["estimate"].tolist() == [0.5, 0.25]


def test_ties_contradictions_and_missing_pairs_are_no_circles() -> None:
    tied = tournament(("a", "b"), ("b", "c"), ties=[("a", "c")])
    found = annotators.cycles(make_pairs(tied, origin="test"))
    assert found.cyclic is None and found.transitive == wilson_interval(0, 1)
    twice = tournament(("a", "b"), ("b", "c"), ("c", "a"))
    twice.append(twice[2] | {"response_1": "a", "response_2": "c", "preference": -1})  # decided both ways: a tie
    assert annotators.cycles(make_pairs(twice, origin="test")).cyclic is None
    unknown = tournament(("a", "b"), ("b", "c"), ("c", "d"), ("c", "a"))
    unknown[3]["preference"] = None
    missing = annotators.cycles(make_pairs(unknown, origin="test"))
    assert missing.cyclic is None and missing.transitive is None
    assert missing.table()["n"].tolist() == [0, 0]


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_circles_are_those_that_enumeration_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = "abcdefg"
    outcome = {couple: int(rng.choice([-1, 0, 1, 2], p=[0.4, 0.1, 0.4, 0.1])) for couple in _couples(names)}
    rows = [
        row | {"preference": sign, "response_1": first, "response_2": second}
        for (first, second), sign in outcome.items()
        if sign != 2  # not compared
        for row in tournament(("x", "y"))
    ]
    beats = {(b, a) if sign > 0 else (a, b) for (a, b), sign in outcome.items() if sign in (-1, 1)}
    triads = [trio for trio in itertools.combinations(names, 3) if all(outcome[p] in (-1, 1) for p in _couples(trio))]
    circles = [
        (a, b, c) for a, b, c in triads if {(a, b), (b, c), (c, a)} <= beats or {(b, a), (c, b), (a, c)} <= beats
    ]
    chains = [(a, c) for a, b, c in itertools.permutations(names, 3) if {(a, b), (b, c)} <= beats]
    closed = [chain for chain in chains if outcome[min(chain), max(chain)] != 2]
    found = annotators.cycles(make_pairs(rows, origin="test"))
    assert found.cyclic == (wilson_interval(len(circles), len(triads)) if triads else None)
    assert found.transitive == (wilson_interval(sum(c in beats for c in closed), len(closed)) if closed else None)


def _couples(names: Sequence[str]) -> list[tuple[str, str]]:
    return list(itertools.combinations(names, 2))


def test_coin_flips_run_in_circles_a_quarter_of_the_time() -> None:
    rng = np.random.default_rng(5)
    names = [f"response {number:02d}" for number in range(40)]
    wins = [couple[:: 1 if flip else -1] for couple, flip in zip(_couples(names), rng.random(780) < 0.5, strict=True)]
    found = annotators.cycles(make_pairs(tournament(*wins), origin="test"))
    assert found.cyclic is not None and found.cyclic.n == 9880  # 40 choose 3
    assert found.cyclic.estimate == pytest.approx(0.25, abs=0.02)


def test_on_real_votes_quality_follows_the_published_competence_and_labels_the_published_gold(
    ukp: tuple[Dataset, pd.Series, pd.Series],
) -> None:
    pairs, gold, competence = ukp
    fitted = annotators.dawid_skene(annotators.pair_votes(pairs))
    assert len(fitted.quality) > 3800 and len(gold) > 15000
    quality = fitted.quality["estimate"]
    assert stats.spearmanr(quality, competence[quality.index]).statistic > 0.5
    often = fitted.quality.query("n >= 20").index
    assert stats.spearmanr(quality[often], competence[often]).statistic > 0.5
    right = fitted.posterior.idxmax(axis=1)[gold.index] == gold
    majority = annotators.pair_votes(pairs).groupby("item")["label"].agg(lambda labels: labels.mode()[0])
    assert right.mean() > 0.8 and right.mean() > gold.value_counts(normalize=True).max() + 0.3
    assert right.mean() > (majority[gold.index] == gold).mean()


def test_on_real_votes_circles_are_far_rarer_than_by_chance(
    ukp: tuple[Dataset, pd.Series, pd.Series],
) -> None:
    found = annotators.cycles(ukp[0])
    assert found.cyclic is not None and found.cyclic.n > 100_000
    assert found.cyclic.high < 0.1


def test_the_true_share_right_counts_preferences_for_the_truly_better_response() -> None:
    votes = [{"a": 2, "b": -1}, {"a": -3, "b": -1}, {"a": 1, "b": -100}]
    rows = [
        {
            "split": "train",
            "prompt": [{"role": "user", "content": f"which {n}?"}],
            "response_1": "this",
            "response_2": "that",
            "annotations": [{"annotator": who, "preference": vote} for who, vote in given_votes.items()],
            "truth_preference": truth,
        }
        for n, (given_votes, truth) in enumerate(zip(votes, (1.5, 0.5, 0.1), strict=True))
    ]
    found = annotators.true_share_right(make_pairs(rows, origin="test"))
    assert found.to_dict() == {"a": pytest.approx(2 / 3), "b": 0.0}  # "neither is valid" is not counted
    with pytest.raises(ValueError, match="only simulated pairs"):
        annotators.true_share_right(make_pairs([row | {"truth_preference": None} for row in rows], origin="test"))
