"""Pipeline for gliomas in four MR modalities: whole tumour, tumour core, enhancing tumour.

python pipelines/brats.py --data-root BraTS2021 [--readers DIR --case ID] [--set dataset=brats_2023_glioma]
python pipelines/brats.py --phantoms 20 [--run runs/brats_2d --set planning.dimensions=2]

With `--phantoms`, synthetic gliomas in the layout of MSD Task01 are created below the run's folder. Images of scan,
reference and prediction side by side are saved in the run's `pictures/`.

With `--readers`, the label maps in a folder, by several readers or algorithms for one case, are scored against the
label of that case.
"""

from pathlib import Path

from arguments import make_parser, open_run

from medunet.cli.exit_codes import run_and_exit
from medunet.commands.check import run_check
from medunet.commands.manifest import run_manifest
from medunet.commands.plan import run_plan
from medunet.commands.predict import run_predict
from medunet.commands.report import run_report
from medunet.commands.run import list_failed, print_tensorboard
from medunet.commands.score import run_score, score_mask_files
from medunet.commands.train import run_train
from medunet.phantoms.brain import SPACING_MM, write_brain_cohort
from medunet.reporting.triptych import save_triptychs
from medunet.runs.run import label_of
from medunet.scoring.tables import read_scores

# Small enough for a few minutes on two CPU cores; change them with `--set`.
PHANTOM_SETTINGS = (
    "dataset=msd_task01_brain_tumour",
    "planning.base_features=16",
    "planning.batch_size=2",
    "training.steps_per_epoch=50",
    "training.max_minutes=10",
    "training.optimizer=adamw",
    "training.learning_rate=2e-3",
    "training.validation_cases=2",
)


def main() -> list[str]:
    """Run all stages, save images, then score the readers."""
    parser = make_parser(__doc__, run="runs/brats")
    parser.add_argument(
        "--phantoms", type=int, metavar="N", help="train on N synthetic cases, created if missing"
    )
    parser.add_argument(
        "--spacing-mm", type=float, nargs=3, default=SPACING_MM, help="voxel size of the synthetic cases"
    )
    parser.add_argument("--readers", type=Path, help="folder of label maps of one case")
    parser.add_argument("--case", help="case that the readers segmented (default: the only one)")
    given = parser.parse_args()
    if given.phantoms is not None:
        given.data_root = given.data_root or given.run / "data"
        i, j, k = given.spacing_mm
        write_brain_cohort(given.data_root, given.phantoms, spacing_mm=(i, j, k))

    run = open_run(given, __file__, PHANTOM_SETTINGS if given.phantoms is not None else ())
    run_manifest(run)
    run_check(run)
    run_plan(run)
    run_train(run)
    failed = run_predict(run)
    scores = run_score(run)
    run_report(run)
    failed |= save_triptychs(
        run.folder, run.data_root, read_scores(run.folder.scores), channels=("FLAIR", "T1gd")
    )
    print_tensorboard(run)

    if given.readers is not None:
        reference = label_of(run, given.case)
        scores += score_mask_files(reference, given.readers, run.folder.root / "readers", run.config)
    return list_failed(failed, scores)


if __name__ == "__main__":
    run_and_exit(main)
