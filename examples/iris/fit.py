"""Score one model class with one value on the training data, and leave score and model. Knows nothing of Prefect."""

import json
import os
from pathlib import Path

import joblib
from flowers import load
from models import model_of
from sklearn.model_selection import cross_val_score


def main() -> None:
    name, strength = os.environ["MODEL_CLASS"], float(os.environ["STRENGTH"])
    train = load(Path(os.environ["JOB_INPUT_DIR"], "split", "train.csv"))
    place = f"{int(os.environ['JOB_INDEX']) + 1} of {os.environ['JOB_COUNT']}"
    print(f"{place}: {name} with {strength:g} on {len(train.kinds)} flowers", flush=True)

    scores = cross_val_score(model_of(name, strength), *train, cv=5)
    output = Path(os.environ["JOB_OUTPUT_DIR"])
    joblib.dump(model_of(name, strength).fit(*train), output / "model.joblib")
    result = {"accuracy": round(scores.mean(), 4), "worst_fold": round(scores.min(), 4)}
    (output / "result.json").write_text(json.dumps(result) + "\n")
    print(f"accuracy {scores.mean():.4f} in five folds, {scores.min():.4f} in the worst of them")


if __name__ == "__main__":
    main()
