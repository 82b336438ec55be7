"""Test the best model class, train it on all the data, and write model and report. Knows nothing of Prefect."""

import json
import os
from pathlib import Path

import joblib
import numpy as np
from flowers import Flowers, load
from models import model_of
from sklearn.datasets import load_iris
from sklearn.metrics import classification_report


def main() -> None:
    name, strength = os.environ["MODEL_CLASS"], float(os.environ["STRENGTH"])
    inputs, output = Path(os.environ["JOB_INPUT_DIR"]), Path(os.environ["JOB_OUTPUT_DIR"])
    train, test = load(inputs / "split/train.csv"), load(inputs / "split/test.csv")
    search = json.loads((inputs / "fit/results.json").read_text())
    best = next(branch for branch in search["branches"] if branch["index"] == search["best"])

    # The model that the search left, on flowers that it has not seen.
    tested = joblib.load(inputs / f"fit/{search['best']}/model.joblib")
    accuracy = tested.score(*test)
    report = classification_report(
        test.kinds, tested.predict(test.measures), target_names=load_iris().target_names, zero_division=0
    )
    every = Flowers(*(np.concatenate(both) for both in zip(train, test, strict=True)))
    joblib.dump(model_of(name, strength).fit(*every), output / "model.joblib")

    rows = sorted(search["branches"], key=lambda branch: -branch["result"]["accuracy"] if branch["result"] else 0)
    lines = ["| model class | strength | accuracy |", "|---|---|---|"]
    lines += [
        "| {MODEL_CLASS} | {STRENGTH:g} | ".format(**row["parameters"])
        + (f"{row['result']['accuracy']:.4f} |" if row["result"] else f"{row['outcome']} |")
        for row in rows
    ]
    text = f"# {name} with {strength:g}\n\nAccuracy on {len(test.kinds)} flowers that it had not seen: {accuracy:.4f}"
    (output / "report.md").write_text("\n\n".join([text, f"```\n{report}```", "\n".join(lines)]) + "\n")
    result = {
        "model_class": name, "strength": strength, "accuracy": round(accuracy, 4),
        "cross_validation": best["result"]["accuracy"], "compared": len(rows), "flowers": len(every.kinds),
    }  # fmt: skip
    (output / "result.json").write_text(json.dumps(result) + "\n")
    print(f"{name} with {strength:g} is the best of {len(rows)}; accuracy in the test: {accuracy:.4f}\n\n{report}")


if __name__ == "__main__":
    main()
