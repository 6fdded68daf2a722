"""Check that score tables can be compared: same settings, same references, each case once."""

from collections.abc import Mapping

import pandas as pd

from medunet.base.errors import InputError
from medunet.base.words import list_some
from medunet.scoring.columns import percentile_of

_SAME_VOLUME = 1e-3  # relative: references that differ by more are not the same
_NUM_NAMED = 3


def check_comparable(tables: Mapping[str, pd.DataFrame]) -> None:
    """Check that tables can be compared.

    Raises:
        InputError: they cannot; the message lists every reason.
    """
    faults = [f"{method}: it has no scores" for method, table in tables.items() if table.empty]
    if len(tables) < 2:
        faults.append(f"{len(tables)} score table(s): two or more are needed to compare")
    for method, table in tables.items():
        if twice := table.loc[table.duplicated(["case", "label"]), "case"].unique().tolist():
            faults.append(
                f"{method}: more than one row with the same label for {list_some(twice, _NUM_NAMED)}"
            )
    filled = {method: table for method, table in tables.items() if not table.empty}
    surfaces = {method: " and ".join(table["surface"].unique()) for method, table in filled.items()}
    robust = {
        method: ", ".join(name for name in map(str, table) if percentile_of(name))
        for method, table in filled.items()
    }
    rules = {method: _list_rules(table) for method, table in filled.items() if "lesion_rules" in table}
    for what, found in (
        ("surface", surfaces),
        ("robust Hausdorff distance", robust),
        ("lesion rules", rules),
    ):
        if len(set(found.values())) > 1 or any(" and " in kind for kind in found.values()):
            listed = "; ".join(f"{kind or 'none'} in {method}" for method, kind in found.items())
            faults.append(f"the {what} differs ({listed})")
    if filled and not set.intersection(*(set(table["label"]) for table in filled.values())):
        faults.append("no label is common to all")
    if not faults and (other := _other_references(tables)):
        faults.append(f"{list_some(other, _NUM_NAMED)} was scored against references of different volume")
    if faults:
        raise InputError(
            "; ".join(faults),
            where="medunet compare",
            hint="Score all methods against the same references, with the same scoring.surface, scoring.hd95 and "
            "scoring.percentile.",
        )


def _other_references(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return the cases whose reference volume differs between tables."""
    known = [table for table in tables.values() if "reference_ml" in table]
    if not known:
        return []
    volumes = pd.concat([table[["case", "label", "reference_ml"]] for table in known])
    spread = volumes.groupby(["case", "label"], sort=False)["reference_ml"].agg(["min", "max"]).dropna()
    differ = (spread["max"] - spread["min"] > _SAME_VOLUME * spread["max"]).to_numpy()
    return list(dict.fromkeys(spread.index[differ].get_level_values("case")))


def _list_rules(table: pd.DataFrame) -> str:
    """Return the lesion rules of each label that has any, as text."""
    known = table[table["lesion_rules"] != ""].drop_duplicates(["label", "lesion_rules"])
    return ", ".join(f"{row.label}: {row.lesion_rules}" for row in known.sort_values("label").itertuples())
