"""One table of all that the tiny experiments found, beside what the paper is recalled to have:

    for e in E01 E02 E03 E04 E05 E06 E07 E08 E09 E10 E12 E13 E13-all E14 E15 E16 E17 E18; do
        rekindle run experiments/self/tiny/$e.toml
    done
    python experiments/self/tiny/table.py results/self-tiny > results/self-tiny/README.md

Needs nothing but Python. The numbers are those of each experiment's `scores.json`.
"""

import json
import sys
from pathlib import Path

HEAD = """# The paper's experiments, tiny

Written by `experiments/self/tiny/table.py`. A model of one layer that this program trains from nothing, on
GSM8K's own questions, 12 test problems a set: it shows that every manifest runs from end to end, and **nothing
follows from its numbers**. Each experiment's own report is in the folder of its name; a value that an earlier
row shows already is not shown again.

E08's third arm has D_QA beside its own data, since a model that learnt nothing keeps none of its own answers.
E15 and E16 are judged by a rule that counts shared words, on all of Vicuna's 80 questions and 12 of Evol-Instruct's.
Alpaca's file was out of reach when they were run: their instructions are the 102 of an excerpt of its cleaned
version (git blob `0c6070cccf1029402df097acbc334004e67ec7bc`, given by `--mirror DIR --set
'dataset.prompts.git-blob="..."'`).

Here: share of right answers, or of pairs won, in percent with Wilson's 95 % interval. Paper: values as recalled, to be checked
against the PDF; none of them was read in it.

| experiment | arm | table | model | on | number | here | paper | how sure | verdict |
| --- | --- | --- | --- | --- | --- | --- | ---: | --- | --- |
"""


def interval(value):
    if not value or value["n"] == 0:
        return "-"
    return "{:.1f} [{:.1f}, {:.1f}] of {}".format(
        *(100 * value[key] for key in ("value", "low", "high")), value["n"]
    )


def main():
    sys.stdout.write(HEAD)
    shown = set()
    for path in sorted(Path(sys.argv[1]).glob("E*/scores.json")):
        scores = json.loads(path.read_text())
        for arm in scores["arms"]:
            where = ", ".join(f"{axis} = {label}" for axis, label in arm["coordinates"].items())
            for target in arm["targets"]:
                number = target["mode"]
                if target["metric"] != "accuracy":
                    number = f"{target['metric']}, {number}"
                cells = [
                    path.parent.name, where or "-", target["table"] or "-", target["subject"],
                    target["dataset"], number, interval(target["value"]),
                    f"{100 * target['paper']:.2f}", target["source-confidence"],
                    target["standing"] or "shown only",
                ]
                # An experiment that extends another one shows its values again.
                if tuple(cells[1:]) not in shown:
                    shown.add(tuple(cells[1:]))
                    print("| " + " | ".join(cells) + " |")


main()
