"""Labels: what can be one, which are the network's own, and how they are numbered."""

from __future__ import annotations

import operator
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["OTHERS", "Coded", "clean_text", "code_labels", "factorize", "is_null", "is_others", "label_problem", "rank"]

OTHERS = "others@"
_PAST_OTHERS = "othersA"  # the first text that sorts behind everything that starts with OTHERS


@dataclass(frozen=True, eq=False)
class Coded:
    """A column of labels as numbers.

    Where they were checked and ranked before, the door takes them as they are, and columns that share ``categories``
    (the same object) are matched without looking at a single label.
    """

    codes: NDArray[Any]
    categories: pd.Index
    ranked: bool = True  # labels that are none are not among the categories; each stands once; they are sorted

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Any) -> Any:
        return self.categories[self.codes[rows]] if np.ndim(rows) == 0 else replace(self, codes=self.codes[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = self.categories.dtype.kind in "iu"
        labels: NDArray[Any] = np.asarray(self.categories) if whole else self.categories.to_numpy(dtype=object)
        return np.asarray(labels[self.codes], dtype=dtype)

    def tolist(self) -> list[Any]:
        """Return the label of every row."""
        return list(np.asarray(self).tolist())

    @property
    def is_key(self) -> bool:
        """Whether every label stands once, in order."""
        return self.ranked and len(self) == len(self.categories) and bool((self.codes == np.arange(len(self))).all())


def factorize(values: Any) -> tuple[NDArray[np.intp], Any]:
    """Return codes and distinct labels; what cannot be a label (a list, say) becomes text, which no table knows."""
    import pandas as pd

    if isinstance(values, (Coded, pd.Categorical)):
        return values.codes, values.categories
    array = values if isinstance(values, np.ndarray) else np.asarray(values)
    try:
        return pd.factorize(array)
    except TypeError:
        return pd.factorize(np.array([repr(value) for value in array.tolist()], dtype=object))


def rank(labels: pd.Index) -> NDArray[np.intp] | None:
    """Return the order that sorts labels; None where one stands twice or two cannot be compared.

    Sorting shows what stands twice at a fraction of the price of hashing every label.
    """
    names = labels.to_numpy(dtype=object).tolist()
    try:
        order = sorted(range(len(names)), key=names.__getitem__)
    except TypeError:
        return None
    ranked = [names[place] for place in order]
    return None if any(map(operator.eq, ranked, ranked[1:])) else np.array(order, dtype=np.intp)


def code_labels(codes: NDArray[Any], labels: Any) -> Coded:
    """Turn the numbers of labels as they are given into those of the sorted labels, where they can be sorted."""
    import pandas as pd

    index = pd.Index(labels, tupleize_cols=False)
    order = rank(index)
    if order is None:
        return Coded(codes, index, ranked=False)
    if (order[1:] > order[:-1]).all():
        return Coded(codes, index)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return Coded(place[codes], index[order])


def clean_text(array: NDArray[Any]) -> bool:
    """Whether all labels are text without spaces around it: the quick way through for millions of them."""
    import pandas as pd

    if pd.api.types.infer_dtype(array, skipna=False) != "string":
        return False
    return all(text and text == text.strip() for text in array.tolist())


def label_problem(value: object) -> tuple[str, str] | None:
    """Say what is allowed instead of a value that cannot be a label, and the cure; None where it can."""
    if isinstance(value, str):
        if value and value == value.strip():
            return None
        return ("no spaces around a label", f"write {value.strip()!r}") if value else ("a label", "name the row")
    if is_null(value):
        return "a label", "name the row"
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        return "text or an integer", "give text or a whole number"
    return None


def is_null(value: object) -> bool:
    """Tell None, NaN, NaT, pandas.NA and a masked cell from a value."""
    if value is None or value is np.ma.masked or type(value).__name__ == "NAType":
        return True
    if isinstance(value, (str, bytes, tuple, list, np.ndarray)):
        return False
    return bool(value != value)  # noqa: PLR0124 NaN and NaT of any type


def is_others(values: Any) -> NDArray[np.bool_]:
    """Tell which labels start with ``others@``, kept for what the network adds."""
    if isinstance(values, Coded) and values.ranked:
        if not len(values) or not isinstance(values.categories[0], str):
            return np.zeros(len(values), dtype=bool)
        first, last = (bisect_left(values.categories, text) for text in (OTHERS, _PAST_OTHERS))
        return np.asarray((values.codes >= first) & (values.codes < last))
    if hasattr(values, "categories"):
        hit = is_others(values.categories)
        return np.append(hit, False)[values.codes] if hit.any() else np.zeros(len(values), dtype=bool)
    if np.asarray(values).dtype.kind in "iuf":
        return np.zeros(len(values), dtype=bool)
    labels = np.asarray(values, dtype=object).tolist()
    if OTHERS not in "\n".join(map(str, labels)):
        return np.zeros(len(values), dtype=bool)
    return np.array([isinstance(label, str) and label.startswith(OTHERS) for label in labels], dtype=bool)
