"""Votes on arguments: two layouts of the same files, the consensus, folds of whole debates, and broken input."""

import copy
import gzip
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmlib import pairs, sources
from rmlib.pairs import DataError
from rmlib.sources import ukpconvarg1

Rows = list[dict[str, Any]]
FIXTURE = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
TOPICS = ("cats-or-dogs-_cats", "cats-or-dogs-_dogs", "is-tea-better_no-coffee", "is-tea-better_yes")
TEXTS = {"x1": "They purr.", "x2": "They keep mice away & need <no> walks.\n\nGröße matters.", "x3": "Just because."}
ARGUMENTS = [{"topic": topic, "id": f"{topic[-3:]}{name}", "text": f"{text} ({topic[-4:]})"}
             for topic in TOPICS for name, text in TEXTS.items()]  # fmt: skip


def vote(worker: str, value: str, reason: str = "A1  says more.") -> dict[str, Any]:
    return {"worker": worker, "value": value, "reason": reason, "competence": f"0.{len(worker)}5"}


def compared(topic: str, first: str, second: str, values: str, gold: str | None = "a1") -> dict[str, Any]:
    names = [f"{topic[-3:]}{name}" for name in (first, second)]
    full = {"1": "a1", "2": "a2", "=": "equal"}
    votes = [vote(f"w{'o' * index}", full[value]) for index, value in enumerate(values)]
    return {"topic": topic, "id": "_".join(names), "arg1": names[0], "arg2": names[1], "gold": gold, "votes": votes}


PAIRS = [
    compared(TOPICS[0], "x1", "x2", "22222", "a2"),
    compared(TOPICS[0], "x3", "x1", "2221=", "a2"),
    compared(TOPICS[1], "x1", "x2", "=====", "equal"),
    compared(TOPICS[1], "x2", "x3", "1111", "a1"),
    compared(TOPICS[2], "x1", "x2", "12=12", None),
    compared(TOPICS[3], "x1", "x3", "111=2", "a1"),
]
STRICT = "topic,id,label\n" + "".join(f"{row['topic']},{row['id']},a1\n" for row in PAIRS[:1] + PAIRS[5:])


def write_json(folder: Path, arguments: Rows = ARGUMENTS, rows: Rows = PAIRS, ending: str = ".gz") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"arguments.jsonl": arguments, "pairs.jsonl": rows}
    files = {name: "".join(json.dumps(row) + "\n" for row in table) for name, table in contents.items()}
    for name, text in (files | {"strict.csv": STRICT}).items():
        data = text.encode()
        (folder / (name + ending)).write_bytes(gzip.compress(data, mtime=0) if ending else data)
    return folder


def as_xml(rows: Rows, texts: dict[str, str]) -> str:
    """Pairs of one topic as the release writes them."""
    parts = []
    for row in rows:
        sides = [
            f"<{side}><author>author</author><text>{escape(texts[row[side]])}</text><id>{row[side]}</id></{side}>"
            for side in ("arg1", "arg2")
        ]
        votes = [
            f"<mTurkAssignment><turkID>{v['worker']}</turkID><value>{v['value']}</value><reason>{escape(v['reason'])}"
            f"</reason><turkCompetence>{v['competence']}</turkCompetence></mTurkAssignment>"
            for v in row["votes"]
        ]
        gold = f"<goldLabel>{row['gold']}</goldLabel>" if row["gold"] else ""
        assignments = f"<mTurkAssignments>{''.join(votes)}</mTurkAssignments>"
        parts.append(
            f"<annotatedArgumentPair>\n<id>{row['id']}</id>{''.join(sides)}{assignments}{gold}</annotatedArgumentPair>"
        )
    return '<?xml version="1.0"?>\n<list>\n' + "\n".join(parts) + "\n</list>\n"


def write_xml(folder: Path, ending: str = ".xml.gz") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    texts = {argument["id"]: argument["text"] for argument in ARGUMENTS}
    for topic in TOPICS:
        data = as_xml([row for row in PAIRS if row["topic"] == topic], texts).encode()
        (folder / (topic + ending)).write_bytes(gzip.compress(data, mtime=0) if ending.endswith(".gz") else data)
    return folder


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMLIB_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_json(tmp_path / "layout")


def test_a_pair_becomes_a_row_with_every_vote_as_an_annotation(layout: Path) -> None:
    row = ukpconvarg1.load(layout)[1]
    assert [message["role"] for message in row["prompt"]] == ["user"]
    assert "Cats or dogs" in row["prompt"][0]["content"] and "Cats." in row["prompt"][0]["content"]
    assert (row["response_1"], row["response_2"]) == ("Just because. (cats)", "They purr. (cats)")
    votes = [(v["annotator"], v["preference"], v["justification"]) for v in row["annotations"]]
    values = [1, 1, 1, -1, 0]
    assert votes == [(f"w{'o' * index}", value, "A1  says more.") for index, value in enumerate(values)]
    assert row["ratings_1"] is None and row["preference"] == 1


@pytest.mark.parametrize(
    ("values", "preference"),
    [("22222", 3), ("2222", 2), ("222=", 2), ("2221=", 1), ("=====", 0), ("12=12", 0), ("1111", -2), ("1111111", -3)],
)
def test_the_preference_is_the_sign_of_the_margin_in_three_steps(values: str, preference: int) -> None:
    assert ukpconvarg1.consensus({"1": -1, "=": 0, "2": 1}[value] for value in values) == preference


@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=5))
def test_turning_the_votes_round_turns_the_consensus_round_and_equal_votes_change_nothing(votes: list[int]) -> None:
    consensus = ukpconvarg1.consensus(votes)
    steps = {0: 0, 1: 1, 2: 1, 3: 2, 4: 2, 5: 3}
    assert abs(consensus) == steps[abs(sum(votes))]
    assert ukpconvarg1.consensus([-vote for vote in votes]) == -consensus
    assert ukpconvarg1.consensus([*votes, 0]) == consensus


@pytest.mark.parametrize("ending", [".xml", ".xml.gz"])
def test_both_layouts_give_the_same_table(layout: Path, tmp_path: Path, ending: str) -> None:
    released = write_xml(tmp_path / "released", ending)
    assert ukpconvarg1.load(released).to_list() == ukpconvarg1.load(layout).to_list()
    plain = write_json(tmp_path / "plain", ending="")
    assert ukpconvarg1.load(plain).to_list() == ukpconvarg1.load(layout).to_list()


def test_line_ends_are_the_same_in_both_layouts(tmp_path: Path) -> None:
    def table(ending: str) -> Dataset:
        arguments = [argument | {"text": f"One{ending}two {argument['id']}"} for argument in ARGUMENTS]
        return ukpconvarg1.load(write_json(tmp_path / repr(ending), arguments))

    assert table("\r\n").to_list() == table("\n").to_list() == table("\r").to_list()


def test_subsets_hold_what_their_labels_name(layout: Path) -> None:
    assert len(ukpconvarg1.load(layout)) == 6
    golden = ukpconvarg1.load(layout, subset="gold")
    assert len(golden) == 5 and set(golden["pair_id"]) == set(ukpconvarg1.gold(layout).index)
    strict = ukpconvarg1.load(layout, subset="strict")
    assert sorted(strict["preference"]) == [-1, 3]


def test_gold_labels_and_counts_are_those_of_the_files(layout: Path) -> None:
    table = ukpconvarg1.load(layout).to_pandas().set_index("pair_id")
    gold = table.join(ukpconvarg1.gold(layout))["gold"]
    assert gold.fillna(9).tolist() == [1, 1, 0, -1, 9, -1]
    found = ukpconvarg1.counts(layout)["found"]
    expected = {"pairs": 6, "votes": 29, "workers": 5, "arguments": 10, "topics": 4, "debates": 2, "pairs with gold": 5}
    assert found[list(expected)].to_dict() == expected
    assert found["pairs decided by gold"] == 4 and found["pairs of the strict set"] == 2


def test_workers_are_counted_with_their_published_competence(layout: Path, caplog: pytest.LogCaptureFixture) -> None:
    workers = ukpconvarg1.workers(layout)
    assert workers["n_votes"].to_dict() == {"w": 6, "wo": 6, "woo": 6, "wooo": 6, "woooo": 5}
    assert workers["competence"].tolist() == [0.15, 0.25, 0.35, 0.45, 0.55] and not caplog.records
    changed = copy.deepcopy(PAIRS)
    changed[0]["votes"][0]["competence"] = 0.75
    varied = ukpconvarg1.workers(write_json(layout, rows=changed))
    assert varied.loc["w", "competence"] == 0.15
    assert "1 workers have more than one published competence" in caplog.text


def test_whole_debates_are_held_out_and_every_debate_once(tmp_path: Path) -> None:
    arguments, rows = [], []
    for debate in range(16):
        for side in ("no", "yes"):
            topic = f"debate-{debate:02}_{side}"
            arguments += [{"topic": topic, "id": f"{topic}{n}", "text": f"Text {n} of {topic}"} for n in range(2)]
            row = {"topic": topic, "id": topic, "arg1": f"{topic}0", "arg2": f"{topic}1", "gold": None}
            rows.append(row | {"votes": [vote("w", "a1")]})
    layout = write_json(tmp_path, arguments, rows)
    for n_folds, sizes in {5: {6, 8}, 16: {2}, 2: {16}}.items():
        held_out: Counter[str] = Counter()
        for fold in range(n_folds):
            table = ukpconvarg1.load(layout, fold=fold, n_folds=n_folds).to_pandas()
            debates = table["response_1"].str.extract(r"(debate-\d+)_")[0]
            assert not set(debates[table["split"] == "train"]) & set(debates[table["split"] == "validation"])
            held_out.update(debates[table["split"] == "validation"])
            assert (table["split"] == "validation").sum() in sizes
        assert len(held_out) == 16 and set(held_out.values()) == {2}


def test_the_source_is_recognised_and_named_in_both_layouts(layout: Path, tmp_path: Path) -> None:
    for source in (layout, write_xml(tmp_path / "released")):
        table, info = sources.load_described(source)
        assert (info.name, info.preferences) == ("ukpconvarg1", pairs.CONSENSUS)
        assert info.title == f"UKPConvArg1 ({table['split'][:].count('train')} train, 4 validation)"
        assert len(sources.load(source, subset="gold")) == 5
    assert not ukpconvarg1.is_layout(tmp_path)


def test_own_pairs_beside_a_file_of_arguments_are_not_mistaken_for_the_corpus(tmp_path: Path) -> None:
    own = {"prompt": "Why?", "response_1": "So.", "response_2": "No.", "preference": -1, "split": "train"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(own) + "\n")
    (tmp_path / "arguments.jsonl").write_text(json.dumps(own | {"prompt": "How?"}) + "\n")
    assert sources.describe(tmp_path).title.startswith("own pairs")


def test_counts_that_differ_from_the_release_are_told(layout: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ukpconvarg1.load(layout)
    assert "not the full release: pairs 6 instead of 16,927, votes 29 instead of 84,445" in caplog.text
    assert "1 pairs have other than 5 votes" in caplog.text


def test_pairs_of_the_same_texts_are_left_out_with_their_rows_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    same = copy.deepcopy(ARGUMENTS)
    same[1]["text"] = same[0]["text"]
    table = ukpconvarg1.load(write_json(tmp_path, same))
    assert len(table) == 5 and "pairs.jsonl.gz, row 1" in caplog.text
    assert len(ukpconvarg1.gold(tmp_path)) == 4


def changed(field: str, value: Any) -> Rows:
    rows = copy.deepcopy(PAIRS)
    rows[1][field] = value
    return rows


def with_vote(**fields: Any) -> Rows:
    return changed("votes", [vote("w", "a1"), vote("v", "a2") | fields])


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (changed("arg1", "x9"), "field 'arg1': no text for the argument 'x9'"),
        (changed("votes", []), "field 'votes': [] is not a list of votes"),
        (changed("votes", ["a1"]), "field 'votes[0]': 'a1' is not a vote"),
        (changed("gold", "a3"), "field 'gold': 'a3' is not a vote"),
        (changed("topic", "cats"), "field 'topic': 'cats' is not <debate>_<side>"),
        (changed("id", PAIRS[0]["id"]), "occurs twice"),
        (with_vote(value="A1"), "field 'votes[1].value': 'A1' is not a vote"),
        (with_vote(value=1), "field 'votes[1].value': 1 is not a vote"),
        (with_vote(worker=" "), "field 'votes[1].worker': the text is empty"),
        (with_vote(reason=None), "field 'votes[1].reason': None is not a text"),
        (with_vote(reason="\ud800"), "field 'votes[1].reason': not valid Unicode"),
        (with_vote(competence="much"), "field 'votes[1].competence': 'much' is not a number"),
        (with_vote(competence="nan"), "field 'votes[1].competence': nan is not a finite number"),
        (with_vote(competence=7), "field 'votes[1].competence': 7 is outside 0 to 1"),
    ],
)
def test_a_bad_pair_is_refused_with_file_row_and_field(tmp_path: Path, rows: Rows, says: str) -> None:
    layout = write_json(tmp_path, rows=rows)
    with pytest.raises(DataError, match=re.escape("pairs.jsonl.gz, row 2")) as error:
        ukpconvarg1.load(layout)
    assert says in str(error.value)


@given(data=st.data())
@FIXTURE
def test_a_field_of_another_type_or_missing_is_refused_or_changes_nothing(layout: Path, data: st.DataObject) -> None:
    original = ukpconvarg1.load(write_json(layout)).to_list()
    rows = copy.deepcopy(PAIRS)
    target = data.draw(st.sampled_from([rows[3], rows[3]["votes"][2]]))
    field = data.draw(st.sampled_from(sorted(target)))
    value = data.draw(st.none() | st.booleans() | st.integers() | st.floats() | st.just([]) | st.just({}))
    if data.draw(st.booleans()):
        del target[field]
    else:
        target[field] = value if value == value else None
    try:
        found = ukpconvarg1.load(write_json(layout, rows=rows)).to_list()
    except DataError as error:
        assert "pairs.jsonl.gz, row" in str(error)
    else:  # a missing gold label is none, and the table holds no competence
        assert field in {"gold", "competence"} and found == original


@given(cut=st.integers(1, 500), which=st.sampled_from(["pairs.jsonl.gz", "arguments.jsonl.gz", "strict.csv.gz"]))
@FIXTURE
def test_a_file_cut_short_is_named(layout: Path, cut: int, which: str) -> None:
    path = write_json(layout) / which
    data = path.read_bytes()
    path.write_bytes(data[: max(1, len(data) - cut)])
    with pytest.raises(DataError, match=re.escape(which)):
        ukpconvarg1.load(layout)


@given(cut=st.integers(1, 900))
@FIXTURE
def test_xml_cut_short_is_named(tmp_path: Path, cut: int) -> None:
    path = write_xml(tmp_path, ".xml") / f"{TOPICS[1]}.xml"
    path.write_bytes(path.read_bytes().rstrip()[:-cut])
    with pytest.raises(DataError, match=re.escape(path.name)):
        ukpconvarg1.load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("<reason>A1", "<reason>A1 < A2", "line 6, column"),
        ("<reason>A1  says more.</reason>", "", "row 1, field 'reason': the element is missing"),
        ("<text>They purr. (dogs)</text>", "", "row 1, field 'arg1/text': the element is missing"),
        ("<text>They purr. (dogs)</text>", "<text/>", "row 1, field 'arg1/text': the text is empty"),
        ("<text>They keep", "<text>Some keep", "row 2, field 'arg1': another text"),
        ("<value>equal</value>", "<value>both</value>", "row 1, field 'votes[0].value': 'both' is not a vote"),
        ("mTurkAssignments", "assignments", "row 1, field 'votes': [] is not a list of votes"),
        ("annotatedArgumentPair", "pair", "row 1: unexpected element <pair>"),
        ("<?xml version=\"1.0\"?>", "<?xml version=\"1.0\"?><!DOCTYPE list>", "declares a document type"),
        ("They keep", "They \x00keep", "line"),
        ("</list>", "&lol;</list>", "line"),
    ],
)  # fmt: skip
def test_broken_xml_is_refused_with_file_and_place(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = write_xml(tmp_path, ".xml") / f"{TOPICS[1]}.xml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    count = 1 if old == "<text>They keep" else -1
    path.write_text(text.replace(old, new, count), encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(path.name)) as error:
        ukpconvarg1.load(tmp_path)
    assert says in str(error.value)


def test_entities_that_multiply_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = write_xml(tmp_path, ".xml") / f"{TOPICS[0]}.xml"
    levels = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    bomb = f'<?xml version="1.0"?><!DOCTYPE list [<!ENTITY l0 "lol">{levels}]><list>&l9;</list>'
    path.write_text(bomb)
    with pytest.raises(DataError, match="declares a document type"):
        ukpconvarg1.load(tmp_path)
    for encoding in ("utf-16", "utf-32"):
        path.write_bytes(bomb.encode(encoding))
        with pytest.raises(DataError, match="not UTF-8"):
            ukpconvarg1.load(tmp_path)


def test_arguments_that_occur_twice_and_topics_in_two_files_are_refused(layout: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"arguments.jsonl.gz, row 13, field 'id': .* occurs twice"):
        ukpconvarg1.load(write_json(layout, [*ARGUMENTS, ARGUMENTS[0]]))
    released = write_xml(tmp_path / "released")
    write_xml(released, ".xml")
    with pytest.raises(DataError, match="occurs twice"):
        ukpconvarg1.load(released)


def test_options_out_of_range_and_missing_files_are_refused(layout: Path, tmp_path: Path) -> None:
    for options, says in [
        ({"subset": "golden"}, "unknown subset 'golden'. Use one of all, gold, strict"),
        ({"fold": 5}, "there is no fold 5 of 5"),
        ({"fold": -1}, "there is no fold -1 of 5"),
        ({"n_folds": 1}, "there is no fold 0 of 1"),
        ({"fold": 1}, "fold 1 of 5 leaves train or validation without a pair"),
    ]:
        with pytest.raises(DataError, match=re.escape(says)):
            ukpconvarg1.load(layout, **options)
    with pytest.raises(DataError, match="no strict.csv"):
        ukpconvarg1.load(write_xml(tmp_path / "released"), subset="strict")
    (layout / "arguments.jsonl.gz").unlink()
    with pytest.raises(DataError, match=r"holds pairs.jsonl.gz, strict.csv.gz"):
        ukpconvarg1.load(layout)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("topic,id,label\na_b,x_y,a3\n", "row 2, field 'label': 'a3' is not a vote"),
        ("topic,label\na_b,a1\n", "row 2, field 'id': the field is missing"),
        ("topic,id,label\na_b\n", "row 2, field 'label': None is not a vote"),
        ('topic,id,label\na_b,"x', "not CSV"),
        ("topic,id,label\na_b,\xe9,a1\n", "not UTF-8"),
    ],
)
def test_a_bad_list_of_the_strict_set_is_refused(layout: Path, text: str, says: str) -> None:
    (layout / "strict.csv.gz").unlink()
    (layout / "strict.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match="strict.csv") as error:
        ukpconvarg1.load(layout)
    assert says in str(error.value)


@pytest.fixture(scope="module")
def corpus(shared_data: Callable[[str], Path]) -> Path:
    return shared_data("ukpconvarg1")


@pytest.fixture(scope="module")
def table(corpus: Path) -> pd.DataFrame:
    return ukpconvarg1.load(corpus).to_pandas()


def read_json(path: Path) -> Rows:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_the_real_corpus_has_the_published_counts(corpus: Path) -> None:
    counts = ukpconvarg1.counts(corpus)
    assert counts["found"].tolist() == counts["published"].tolist()


def test_the_real_table_is_what_the_file_says_less_pairs_of_texts_that_came_before(
    corpus: Path, table: pd.DataFrame
) -> None:
    texts = {argument["id"]: argument["text"] for argument in read_json(corpus / "arguments.jsonl.gz")}
    kept: dict[tuple[str, str], list[str]] = {}
    for row in read_json(corpus / "pairs.jsonl.gz"):
        first, second = texts[row["arg1"]], texts[row["arg2"]]
        if first != second:
            kept.setdefault((first, second), [v["value"] for v in row["votes"]])
    assert list(zip(table["response_1"], table["response_2"], strict=True)) == list(kept)
    margins = np.array([values.count("a2") - values.count("a1") for values in kept.values()])
    expected = np.select([np.abs(margins) > 4, np.abs(margins) > 2, margins != 0], [3, 2, 1]) * np.sign(margins)
    assert table["preference"].tolist() == expected.tolist()


def test_each_default_fold_holds_out_about_a_fifth_of_the_real_pairs(corpus: Path, table: pd.DataFrame) -> None:
    assert 0.15 < (table["split"] == "validation").mean() < 0.25
    train, validation = (set(table.loc[table["split"] == s, "response_1"]) for s in ("train", "validation"))
    assert not train & validation


def test_real_gold_labels_mostly_have_the_sign_of_the_consensus(corpus: Path, table: pd.DataFrame) -> None:
    both = table.set_index("pair_id").join(ukpconvarg1.gold(corpus)).dropna(subset=["gold"])
    decided = both[(both["gold"] != 0) & (both["preference"] != 0)]
    assert (np.sign(decided["preference"]) == decided["gold"]).mean() > 0.97


def test_a_real_topic_is_the_same_from_xml_as_from_json_but_for_the_names_of_workers(
    corpus: Path, table: pd.DataFrame
) -> None:
    released = ukpconvarg1.load(corpus / "release_layout_sample").to_pandas()
    assert len(released) == 690 and set(released["pair_id"]) <= set(table["pair_id"])
    same = table.set_index("pair_id").loc[released["pair_id"]]
    for column in ("response_1", "response_2", "preference"):
        assert same[column].tolist() == released[column].tolist()
    names: dict[str, str] = {}
    for ours, theirs in zip(same["annotations"], released["annotations"], strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert (one["preference"], one["justification"]) == (other["preference"], other["justification"])
            assert names.setdefault(one["annotator"], other["annotator"]) == other["annotator"]
    assert len(set(names.values())) == len(names)
