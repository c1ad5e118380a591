"""Tables of a bench, made from the committed scores."""

from ..evaluate import summarise
from .jobs import BenchPlan, Job, Result


def make_table(plan: BenchPlan, results: dict[Job, Result]) -> str:
    """Markdown: per data set and fold one line per row and seed, mean (sd) over cases; rows that were not run say so."""
    lines = [f"# {plan.name}, budget `{plan.budget}`", "", f"Made by `scribbleseg bench {plan.path} --budget {plan.budget} --table-only` from the CSVs beside this file."]
    lines += ["Last checkpoint. Mean (sd) over held-out cases. HD95 over found structures; `missing` counts structures with no predicted voxel; `HD95*` counts each of those as the volume's diagonal."]
    for data, split, fold in dict.fromkeys((job.data, job.split, job.fold) for job in plan.jobs):
        part = [job for job in plan.jobs if (job.data, job.split, job.fold) == (data, split, fold)]
        done = [job for job in part if job in results]
        lines += ["", f"## {data}, {split}, fold {fold}", ""]
        if not done:
            lines.append("not run")
            continue
        records = {job: results[job].record for job in done}
        tables = {job: summarise(results[job].rows) for job in done}
        first = tables[done[0]]
        unit, names = first[0]["unit"], [entry["class"] for entry in first]
        fold_record = records[done[0]]["plan"]["fold"]
        held = records[done[0]]["held_out_cases"]
        what = "test" if fold_record["test"] else "validation"
        lines.append(f"Fold `{fold_record['name']}`: trained on {len(fold_record['train'])} cases, scored on {held} {what} cases.")
        head = ["method", "seed", *(f"Dice {n}" for n in names), f"HD95 ({unit})", f"HD95* ({unit})", "missing", "size", "iterations", "batch", "optimiser", "parameters", "minutes"]
        lines += ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for job in part:
            if job not in tables:
                lines.append(f"| {job.label} | {job.seed} | not run |" + " |" * (len(head) - 3))
                continue
            table, record = tables[job], records[job]
            recipe, mean = record["plan"]["recipe"], table[-1]
            cells = [job.label, job.seed, *(_percent(entry) for entry in table), f"{mean['hd95']:.1f}", f"{mean['penalised_hd95']:.1f}", mean["n_missing"]]
            cells += [record["plan"]["size"], recipe["iterations"], recipe["batch"], f"{recipe['optimizer']} {recipe['lr']:g} {recipe['schedule']}"]
            cells += [f"{record['parameters'] / 1e6:.2f} M", f"{record['minutes']:.1f}"]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        lines += ["", "Minutes are of training, other work on the machine included.", "", "```"]
        for job in done:
            machine = records[job]["environment"]
            lines += [f"# {machine['device']}, {machine['precision']}, commit {machine['commit']}", records[job]["command"]]
        lines.append("```")
    return "\n".join(lines) + "\n"


def _percent(entry: dict) -> str:
    return f"{100 * entry['dice']:.1f} ({100 * entry['dice_sd']:.1f})"
