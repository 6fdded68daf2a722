"""The pages of a report: one for each scored case, worst first, one for each other predicted case."""

from collections.abc import Sequence

from medunet.records.config import ReportConfig
from medunet.records.fault import Fault
from medunet.reporting.case_parts import CaseParts, Links, Severity
from medunet.reporting.page import page_names
from medunet.reporting.page_job import PageJob
from medunet.reporting.report_source import ReportOptions, ReportSource
from medunet.reporting.verdict import judge_case

_KEPT_PICTURES = 20  # of worst errors: the first case that has one is shown


def judge_all(source: ReportSource, settings: ReportConfig) -> dict[str, Severity]:
    """Return the severity of each case's verdict by its scores, which its page also judges by."""
    lesions = {} if source.lesions is None else dict(tuple(source.lesions.groupby("case", sort=False)))
    return {
        str(case): judge_case(
            rows, lesions.get(case), settings, source.description.unit, stale=source.stale.of(str(case))
        ).severity
        for case, rows in source.scores.groupby("case", sort=False)
    }


def list_new_jobs(source: ReportSource, ranked: Sequence[str], options: ReportOptions) -> list[PageJob]:
    """Return the pages of predicted cases without a reference."""
    names = page_names([*ranked, *source.unreferenced])
    accepted = () if source.manifest is None else source.manifest.accepted
    jobs = []
    for number, (case_id, prediction) in enumerate(source.unreferenced.items()):
        parts = CaseParts(
            case_id=case_id,
            page=names[case_id],
            description=source.description,
            rows=source.scores.iloc[:0],
            faults=tuple(fault for fault in source.faults or () if fault.case == case_id),
            accepted=tuple(entry for entry in accepted if entry.case == case_id),
            entry=source.entries.get(case_id, {}),
            provenance=source.provenance or {},
            lesion_rules=options.lesion_rules,
        )
        has_volumes = options.num_volumes is None or number < options.num_volumes
        jobs.append(PageJob(parts, source.cases[case_id], prediction, has_volumes, keeps_picture=False))
    return jobs


def list_jobs(source: ReportSource, ranked: Sequence[str], options: ReportOptions) -> list[PageJob]:
    """Return the page of each case, worst first."""
    names = page_names([*ranked, *source.unreferenced])
    rows = dict(tuple(source.scores.groupby("case", sort=False)))
    lesions = {} if source.lesions is None else dict(tuple(source.lesions.groupby("case", sort=False)))
    none = None if source.lesions is None else source.lesions.iloc[:0]
    faults: dict[str, list[Fault]] = {}
    for fault in source.faults or ():
        faults.setdefault(fault.case, []).append(fault)
    accepted = () if source.manifest is None else source.manifest.accepted
    jobs = []
    for rank, case_id in enumerate(ranked):
        case = source.cases.get(case_id)
        parts = CaseParts(
            case_id=case_id,
            page=names[case_id],
            description=source.description,
            rows=rows[case_id],
            lesions=lesions.get(case_id, none),
            links=Links(
                worse=names[ranked[rank - 1]] if rank else None,
                better=names[ranked[rank + 1]] if rank + 1 < len(ranked) else None,
            ),
            fold=case.fold if case else None,
            faults=tuple(faults.get(case_id, ())),
            accepted=tuple(entry for entry in accepted if entry.case == case_id),
            entry=source.entries.get(case_id, {}),
            provenance=source.provenance or {},
            stale=tuple(source.stale.of(case_id)),
            use=source.uses.get(case_id, ""),
        )
        has_volumes = options.num_volumes is None or rank < options.num_volumes
        jobs.append(
            PageJob(
                parts, case, source.predictions[case_id], has_volumes, keeps_picture=rank < _KEPT_PICTURES
            )
        )
    return jobs
