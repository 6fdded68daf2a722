"""`medunet preprocess`: preprocess the training cases before training, such as on many computers without cards."""

from medunet.commands.terminal import print_stage
from medunet.runs.check_status import require_passed_check
from medunet.runs.run import Run


def run_preprocess(run: Run) -> int:
    """Preprocess the training cases of all folds into the run's cache and return their number.

    `medunet train` finds them there. Those that are there already are verified; others are written by workers.

    Raises:
        MedunetError: The data have not passed the check, or cases cannot be preprocessed: lists each with its reason,
            after the others are done.
    """
    from medunet.training.cache import prepare_cases

    require_passed_check(run)
    manifest, plan = run.read_manifest(), run.read_plan()
    cases, _ = manifest.split_fold("all")
    prepare_cases(cases, manifest.description, plan, run.data_root, run.folder.cache, seed=run.config.seed)
    print_stage("Preprocess", f"{len(cases)} cases", run.folder.cache)
    return len(cases)
