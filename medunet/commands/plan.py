"""`medunet plan`: choose spacing, patch size, network and batch size for a dataset."""

from medunet.base.files import hash_value
from medunet.commands.alone import alone
from medunet.commands.terminal import console, print_stage
from medunet.planning.fingerprint import compute_fingerprint
from medunet.records.loss_checks import check_loss, check_mirroring
from medunet.records.manifest import Manifest
from medunet.records.plan import Fingerprint, Plan
from medunet.runs.check_status import data_state, require_passed_check
from medunet.runs.computing import plan_for
from medunet.runs.provenance import add_provenance, read_provenance
from medunet.runs.run import Run, has_started


@alone("plan")
def run_plan(run: Run) -> Plan:
    """Make the plan and write it; an existing plan for the same manifest and settings is kept, even if edited.

    Raises:
        MedunetError: The data have not passed the check, or settings do not suit the labels.
    """
    from medunet.compute.devices import choose_device
    from medunet.postprocessing.steps import check_steps

    require_passed_check(run, trains=False)
    manifest, config = run.read_manifest(), run.config
    device = choose_device(config.device)
    check_steps(config.inference.postprocess, manifest.description.targets)
    check_mirroring(config, manifest.description)
    check_loss(config.training.loss, manifest.description, config.training.class_weights)
    inputs = hash_value([manifest.to_dict(), config.planning.to_dict()])
    earlier = read_provenance(run).get("plan", {})
    # Once training has started, the plan is kept on another device, too.
    same = earlier.get("inputs_sha256") == inputs and (
        has_started(run) or earlier.get("device") == device.type
    )
    plan = run.read_plan() if run.folder.plan.exists() and same else None
    state, fingerprint = data_state(run), None
    if plan is not None and earlier.get("data_state_sha256", state) != state:  # 0.6.0 stored none
        fingerprint = _fingerprint(run, manifest)
        if not fingerprint.is_of_same_data(plan.fingerprint) and has_started(run):
            console.print("[yellow]The data have changed since the plan, with which training has begun.[/]")
            state = earlier["data_state_sha256"]  # so that this is said each time
        elif not fingerprint.is_of_same_data(plan.fingerprint):
            console.print("The data have changed since the plan, which is made again.")
            plan = None
    if plan is not None and plan.grid != "extent" and not has_started(run):
        console.print("The plan of medunet 0.4 was not used for training and is made again.")
        plan = None
    if plan is None:
        plan = plan_for(config, manifest.description, fingerprint or _fingerprint(run, manifest), device)
        plan.write(run.folder.plan)
        add_provenance(run, "plan", {"inputs_sha256": inputs, "device": device.type})
    if earlier.get("data_state_sha256") != state:
        add_provenance(run, "plan", {"data_state_sha256": state})
    run.save()
    sizes = "×".join(map(str, plan.patch_size))
    spacing = "×".join(f"{mm:g}" for mm in plan.spacing_mm)
    text = (
        f"{plan.dimensions}D, patch {sizes} at {spacing} {manifest.description.unit}, batch {plan.batch_size}, "
        f"features {plan.features}"
    )
    print_stage("Plan", text, run.folder.plan)
    return plan


def _fingerprint(run: Run, manifest: Manifest) -> Fingerprint:
    training, _ = manifest.split_fold("all")
    return compute_fingerprint(training, manifest.description, run.data_root, seed=run.config.seed)


def show_network(run: Run) -> None:
    """Print a table of the planned network's layers, with output sizes and parameters."""
    from medunet.networks.summary import network_table

    console.print(network_table(run.read_plan(), run.read_manifest().description))
