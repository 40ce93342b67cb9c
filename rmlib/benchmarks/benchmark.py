"""A benchmark: where its items come from, its rule for one of them, and how their credits make a report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from jaxtyping import Float

from rmlib.benchmarks.items import Given, Row, Rows, file_rows, hub_rows, make_item, raise_for, rows_of, some, table_of
from rmlib.benchmarks.report import Report, Subset, label_of, members_of
from rmlib.benchmarks.sums import Drawn, Sums
from rmlib.records import paths
from rmlib.records.errors import Place
from rmlib.statistics import percentile_interval, wilson_interval

Scored = Mapping[str, Sequence[float]]  # {item_id: [reward of each candidate]}
Rewards = Float[np.ndarray, "candidate"]
TEXTS = "texts_hash"  # of a row of a file of scores: `hashing.text_key` of the item's prompt and candidates
Rule = Callable[[Rewards, Mapping[str, Any]], dict[str, Any]]


class Scores(dict[str, list[float]]):
    """{item_id: [reward of each candidate, in the item's order]}, and why items have none: {item_id: reason}.

    `texts` names, where it is known, the prompt and candidates that were scored: {item_id: `hashing.text_key` of them}.
    """

    def __init__(
        self, rewards: Mapping[str, list[float]] | None = None, skipped: Mapping[str, str] | None = None,
        texts: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(rewards or {})
        self.skipped, self.texts = dict(skipped or {}), dict(texts or {})


def skipped_of(scores: Scored) -> dict[str, str]:
    """Why items have no scores; plain rewards say nothing of it."""
    return scores.skipped if isinstance(scores, Scores) else {}


def aligned(items: Dataset, scores: Scored) -> list[Rewards | None]:
    """The rewards of each item in the order of the items, None for those skipped.

    Raises ValueError naming ids whose scores are missing, left over, not one a candidate, or not finite.
    """
    names, skipped = items["item_id"][:], skipped_of(scores)
    sizes = dict(zip(names, map(len, items["candidates"][:]), strict=True))
    given = [name for name in scores if name in sizes and name not in skipped]
    problems = {
        "no scores": [name for name in names if name not in scores and name not in skipped],
        "no item": [name for name in (*scores, *skipped) if name not in sizes],
        "not one score a candidate": [name for name in given if len(scores[name]) != sizes[name]],
    }
    raise_for(problems, "pass the scores of these very items, or name those left out as skipped")
    rewards = {name: np.asarray(scores[name], dtype=float) for name in given}
    raise_for({"scores that are not finite": [n for n in given if not np.isfinite(rewards[n]).all()]}, "score again")
    return [rewards.get(name) for name in names]


@dataclass(frozen=True)
class Benchmark:
    """The files and the official arithmetic of one benchmark.

    Attributes:
        name, subsets: as in the items.
        rule: rewards `[candidate]` and the item to its row of the credits: at least `credit` (0..1) and `tie`.
        item_of: a row of the official files and its place to the item; raises DataError for a row that is none.
        about: what it asks and what its files look like (the docstring of its module).
        hub: name and split of the data set on the hub; where there are several parts, those of each.
        part_of: the part that a row (with its place, and the name of the folder that was given) belongs to; of a
            benchmark in parts a row gets the field `part`, and rows of parts that nobody asked for are left alone.
        simulated: file of a small simulated set below data/embedded.
        without_hub: what to do for the files of a benchmark that is on no hub.
        prefer: where a folder has files whose names begin so, only these are read.
        keeps_degenerate: whether equal and empty responses stay by default, as the official files have them.
        overall: sections whose plain mean is the Score; none where the benchmark has no overall number.
        micro: the Score is the mean over all items instead.
        one_split: subsets are named split/name, and a report is of the items of one split, which is one part.
        formulas: subsets whose score is not their mean credit, but a sum of column means times these factors.
        zero_where_empty: columns of a formula whose mean over no items counts as 0.
        extra: further sections, name to column: plain mean of that column over the sections of `overall`.
        totals: official number of items of sections whose subsets have no known one.
        unscored: reasons for which the rule itself gives no credit; they do not make a report partial.
        finish: what the credits still need once all items have theirs.
    """

    name: str
    subsets: Mapping[str, Subset]
    rule: Rule
    item_of: Callable[[Row, Place], Given]
    about: str = ""
    hub: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    part_of: Callable[[Row, Place, str], str] | None = None
    simulated: str = ""
    without_hub: str = ""
    prefer: str = ""
    keeps_degenerate: bool = False
    overall: tuple[str, ...] = ()
    micro: bool = False
    one_split: bool = False
    formulas: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    zero_where_empty: frozenset[str] = frozenset()
    extra: Mapping[str, str] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    unscored: frozenset[str] = frozenset()
    finish: Callable[[pd.DataFrame], pd.DataFrame] = lambda table: table

    # --- items --------------------------------------------------------------------------------------------------------

    def load(
        self, source: str | Path | None = None, *, revision: str | Mapping[str, str] = "main",
        parts: str | Sequence[str] = (), partial: bool = False, keep_degenerate: bool | None = None,
    ) -> Dataset:  # fmt: skip
        """The items in the order of the source, checked one by one and as a whole.

        Args:
            source: "hub" (downloads), "simulated" (where the repository carries such a set), or a file or folder in the
                official layout (`about`): .json, .jsonl (both also .gz) or .parquet. By default simulated, else hub.
            revision: branch, tag or commit for "hub", one for all or {part: revision}; the commit that it stands for is
                kept in the column `source`.
            parts: the parts wanted (`hub`), by default all, or the first of those with a result for each.
            partial: accept a source that lacks subsets; its report then has no overall Score.
            keep_degenerate: accept items whose responses are equal or empty; they are logged.
        Raises:
            FileNotFoundError: nothing to read. ValueError: an unknown part; "hub" where there is none. DataError: a
                malformed row, an unknown or missing subset, an id that occurs twice, equal or empty responses.
        """
        source = source or ("simulated" if self.simulated else "hub")
        keep = self.keeps_degenerate if keep_degenerate is None else keep_degenerate
        wanted = self._wanted([parts] if isinstance(parts, str) else parts)
        rows, label = self._rows(source, revision, wanted)
        if self.part_of is not None:
            folder = "" if source == "hub" else Path(source).resolve().name
            named = ((place, {**row, "part": self.part_of(row, place, folder)}) for place, row in rows)
            rows = ((place, row) for place, row in named if row["part"] in wanted)
        items = [make_item(self.item_of(row, place), place, keep_degenerate=keep) for place, row in rows]
        subsets, checks = self.of_split(wanted).subsets, {"partial": partial, "keep_degenerate": keep}
        return table_of(items, Place(str(source)), benchmark=self.name, label=label, subsets=subsets, **checks)

    def _wanted(self, parts: Sequence[str]) -> Sequence[str]:
        """The parts that were named, or those read by default. Raises ValueError for one that is not there."""
        known = list(self.hub) if self.part_of is not None else []
        if unknown := [part for part in parts if part not in known]:
            raise ValueError(f"unknown part {unknown[0]!r}; {self.name} has {', '.join(known) or 'none'}")
        return parts or (known[:1] if self.one_split else known)

    def _rows(self, source: str | Path, revision: str | Mapping[str, str], parts: Sequence[str]) -> tuple[Rows, str]:
        """The rows of a source with their places, and the label that names their content."""
        if source == "simulated" and self.simulated:
            return file_rows(paths.data_dir() / "embedded" / self.simulated)[0], "simulated"
        if source != "hub":
            return file_rows(source, prefer=self.prefer)
        if not self.hub:
            raise ValueError(self.without_hub)
        revisions = dict.fromkeys(self.hub, revision) if isinstance(revision, str) else revision
        found = [hub_rows(*self.hub[part], revisions.get(part, "main")) for part in parts or self.hub]
        return chain.from_iterable(rows for rows, _ in found), " + ".join(label for _, label in found)

    def of_split(self, names: Iterable[str]) -> "Benchmark":
        """The same for the split alone that the named subsets are of. Raises ValueError where they are of several."""
        splits = sorted({name.partition("/")[0] for name in names}) if self.one_split else []
        if len(splits) > 1:
            raise ValueError(f"items of {' and '.join(splits)}: {self.name} has a result for each; pass one split")
        mine = {name: subset for name, subset in self.subsets.items() if name.partition("/")[0] in splits}
        return replace(self, subsets=mine, one_split=False) if splits else self

    @property
    def sections(self) -> dict[str, list[str]]:
        """The subsets of each section, in their official order."""
        return members_of(self.subsets)

    # --- credits and report -------------------------------------------------------------------------------------------

    def credits(self, items: Dataset, scores: Scored) -> pd.DataFrame:
        """One row an item, in their order: item_id, subset, credit (0..1, the official rule), tie, reason, and more.

        Items that are skipped (`Scores.skipped`) have the credit NaN.
        Raises ValueError for no items, items of unknown subsets, and scores that do not fit them (see `aligned`).
        """
        if len(items) == 0:
            raise ValueError("no items to summarise: load some, or loosen the filter")
        self.check_subsets(items.unique("subset"))
        known, rows = rows_of(items, "item_id", "subset", "correct", "pairs"), []
        for row, rewards in zip(known, aligned(items, scores), strict=True):
            none = {"item_id": row["item_id"], "subset": row["subset"], "credit": np.nan, "tie": False, "reason": None}
            found = {"reason": skipped_of(scores)[row["item_id"]]} if rewards is None else self.rule(rewards, row)
            rows.append(none | found)
        return self.finish(pd.DataFrame(rows))

    def summarise(
        self, items: Dataset, scores: Scored | pd.DataFrame, *,
        seed: int = 0, draws: int = 2000, level: float = 0.95, partial: bool = False,
    ) -> Report:  # fmt: skip
        """The report of scores {item_id: [reward of each candidate]}, or of credits as `credits` gives them.

        Subsets whose credits are 0 or 1 get Wilson intervals, all else percentile intervals of `draws` resamples of the
        items within their subsets; the same seed redraws the same items for every model.
        Sections that lack subsets, and the Score of a partial benchmark, are given only with `partial`, over what is
        there. Raises ValueError as `credits`, or for a table of credits that are not of these items.
        """
        if self.one_split:
            of_split = self.of_split(items.unique("subset"))
            return of_split.summarise(items, scores, seed=seed, draws=draws, level=level, partial=partial)
        table = self._checked(items, scores) if isinstance(scores, pd.DataFrame) else self.credits(items, scores)
        sources = sorted(items.unique("source"))
        label = label_of(table, self.subsets, self.totals, unscored=self.unscored, simulated="simulated" in sources)
        sums = Sums.draw(table, self.columns, seed=seed, draws=draws)
        whole = "partial" not in label
        return Report(
            benchmark=self.name,
            source=" + ".join(sources),
            label=label,
            complete=label == "complete",
            n=len(table),
            ties=int(table["tie"].sum()),
            sections=self._section_rows(table, sums, level, whole=whole, partial=partial),
            subsets=self._subset_rows(table, sums, level),
            skipped={str(reason): int(n) for reason, n in table["reason"].value_counts().items()},
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the credits that the report is made of."""
        needed = [column for formula in self.formulas.values() for column in formula]
        return tuple(dict.fromkeys(["credit", *self.extra.values(), *needed]))

    def scores(self, sums: Sums, *, whole: bool = True, partial: bool = False) -> dict[str, Drawn]:
        """Each section that has all its subsets (or, with `partial`, any), the extra ones, and the Score if there."""
        if self.one_split:
            return self.of_split(sums).scores(sums, whole=whole, partial=partial)
        found = {}
        for section, members in self.sections.items():
            present = [name for name in members if name in sums]
            if present and (partial or len(present) == len(members)):
                found[section] = self._section(sums, present)
        overall = [section for section in self.overall if section in found]
        if not overall and not self.micro:
            return found
        if partial or (whole and len(found) == len(self.sections)):
            for name, column in self.extra.items():
                pooled = [[each for each in self.sections[section] if each in sums] for section in overall]
                found[name] = _plain_mean([sums.mean(each, column) for each in pooled])
            found["Score"] = sums.mean(sums) if self.micro else _plain_mean([found[section] for section in overall])
        return found

    def _section_rows(
        self, table: pd.DataFrame, sums: Sums, level: float, *, whole: bool, partial: bool
    ) -> pd.DataFrame:
        """The sections of a report: n, estimate and interval."""
        scored, rows = table[table["credit"].notna()]["subset"].map(lambda name: self.subsets[name].section), []
        for name, drawn in self.scores(sums, whole=whole, partial=partial).items():
            n = int((scored == name).sum()) if name in self.sections else len(scored)
            rows.append((name, n, *bounds(drawn, n, level)))
        return pd.DataFrame(rows, columns=["section", "n", "estimate", "low", "high"]).set_index("section")

    def check_subsets(self, names: Iterable[str]) -> None:
        """ValueError for names that are no subsets of this benchmark."""
        if unknown := sorted(set(names) - self.subsets.keys()):
            raise ValueError(f"unknown subsets {some(unknown)}; {self.name} has {', '.join(self.subsets)}")

    def _checked(self, items: Dataset, table: pd.DataFrame) -> pd.DataFrame:
        self.check_subsets(items.unique("subset"))
        needed = ("item_id", "subset", "tie", "reason", *self.columns)
        if lacking := [column for column in needed if column not in table]:
            raise ValueError(f"the credits lack the columns {', '.join(lacking)}: make them with `credits`")
        if list(table["item_id"]) != items["item_id"][:] or list(table["subset"]) != items["subset"][:]:
            raise ValueError("the credits are not of these items in their order: pass the items they were made for")
        lost = table["item_id"][table["credit"].isna() & table["reason"].isna()]
        outside = table["item_id"][~(table["credit"].isna() | table["credit"].between(0, 1))]
        raise_for({"no credit and no reason": lost, "credits outside 0..1": outside}, "correct them")
        return table

    def _section(self, sums: Sums, present: Sequence[str]) -> Drawn:
        weights = [self.subsets[name].weight for name in present]
        if None in weights and len(present) > 1:
            return sums.mean(present)
        total = sum(weight or 1 for weight in weights)
        return np.asarray(
            sum((weight or 1) * self.value(sums, name) for weight, name in zip(weights, present, strict=True)) / total
        )

    def value(self, sums: Sums, subset: str) -> Drawn:
        """The score of one subset: its mean credit, or what its formula says."""
        if subset not in self.formulas:
            return sums.mean([subset])
        means = {column: sums.mean([subset], column) for column in self.formulas[subset]}
        for column in self.zero_where_empty & means.keys():
            means[column] = np.nan_to_num(means[column])
        return np.asarray(sum(factor * means[column] for column, factor in self.formulas[subset].items()))

    def _subset_rows(self, table: pd.DataFrame, sums: Sums, level: float) -> pd.DataFrame:
        rows = []
        for name, subset in self.subsets.items():
            if name not in sums:
                continue
            of_subset = table[table["subset"] == name]
            credit = of_subset["credit"].dropna()
            weighted = "weight" in table and (of_subset["weight"] != 1).any()
            if name not in self.formulas and not weighted and len(credit) and credit.isin((0, 1)).all():
                interval = wilson_interval(int(credit.sum()), len(credit), level=level)
                found = (interval.estimate, interval.low, interval.high)
            else:
                found = bounds(self.value(sums, name), len(credit), level)
            ties, skipped = int(of_subset["tie"].sum()), int(of_subset["credit"].isna().sum())
            rows.append((name, subset.section, len(credit), subset.n, *found, ties, skipped))
        columns = ["subset", "section", "n", "n_official", "estimate", "low", "high", "ties", "skipped"]
        return pd.DataFrame(rows, columns=columns).set_index("subset").astype({"n_official": "Int64"})


def _plain_mean(scores: Sequence[Drawn]) -> Drawn:
    return np.asarray(sum(scores) / len(scores))


def bounds(drawn: Drawn, n: int, level: float) -> tuple[float, float, float]:
    """Estimate, low and high of n items, from draws of which the first is the estimate; NaN where there are none."""
    usable = drawn[1:][np.isfinite(drawn[1:])]
    if len(usable) == 0:
        return float(drawn[0]), np.nan, np.nan
    interval = percentile_interval(float(drawn[0]), usable, n, level=level)
    return interval.estimate, interval.low, interval.high
