"""`medunet check`: check every file of the manifest."""

from collections.abc import Sequence

from medunet.base.files import remove_unfinished
from medunet.commands.alone import alone
from medunet.commands.terminal import console, print_stage
from medunet.dataset.checks.acceptance import (
    EVERY_CASE,
    accept_faults,
    allow_resampling,
    mark_accepted,
    parse_accepted,
)
from medunet.dataset.checks.manifest_checks import check_manifest, errors_left, fault_table, write_faults
from medunet.records.fault import Fault
from medunet.runs.check_status import data_state
from medunet.runs.provenance import add_provenance
from medunet.runs.run import Run


@alone("check", lock="manifest")  # which it writes, too
def run_check(
    run: Run, *, accept: Sequence[str] = (), allow_resample: bool = False, workers: int | None = None
) -> list[Fault]:
    """Check all cases, write and print the faults, and return the errors that remain.

    `accept` adds accepted faults to the manifest (see `accept_faults`): an entry without a case accepts what this
    check finds in any case. `allow_resample` accepts modalities on different grids. `workers` is the number of
    processes (see `check_manifest`). The page checks.html shows images of the faulty cases.

    Raises:
        MedunetError: The manifest is missing, or a fault cannot be accepted.
    """
    from medunet.reporting.check_page import write_check_page

    manifest = run.read_manifest()
    entries = parse_accepted(
        accept, (case.id for case in manifest.cases)
    )  # refused before the files are read
    remove_unfinished(
        [run.folder.manifest, *(run.folder.checks.with_suffix(each) for each in (".json", ".csv", ".html"))]
    )
    faults = check_manifest(manifest, run.data_root, loss=run.config.training.loss, workers=workers)
    allowed = accept_faults(manifest, accept, faults)
    if allow_resample:
        allowed = allow_resampling(allowed, faults)
    if allowed != manifest:
        manifest, faults = allowed, mark_accepted(faults, allowed.accepted)
        manifest.write(run.folder.manifest)
    num_resampled = sum(case.resample for case in manifest.used)
    write_faults(faults, run.folder.root)
    page = write_check_page(run.folder, manifest, faults, run.data_root, workers=workers)
    add_provenance(run, "check", {"data_state_sha256": data_state(run)})
    run.save()
    left = errors_left(faults, manifest)
    if faults:
        console.print(fault_table(faults))
    for code in {entry.code: None for entry in entries if entry.case == EVERY_CASE}:
        num_accepted = sum(fault.code == code for fault in faults)
        console.print(f"  [yellow]accepted[/] {code} in {num_accepted} place(s)")
    if num_resampled:
        console.print(f"  [yellow]resampled[/] {num_resampled} case(s), to the grid of the first modality")
    num_warnings = sum(fault.severity == "warning" and not fault.accepted for fault in faults)
    print_stage("Check", f"{len(left)} errors, {num_warnings} warnings", page)
    return left
