"""Fit one model class on the iris data and say how well it does. Knows nothing of Prefect."""

import argparse
import json
import os
import sys
from pathlib import Path

from models import MODELS
from sklearn.datasets import load_iris
from sklearn.metrics import accuracy_score, classification_report
from sklearn.model_selection import train_test_split


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--test-size", type=float, default=0.2, help="share of the data kept for the test, 0 to 1")
    test_size = parser.parse_args().test_size
    if not 0 < test_size < 1:
        parser.error(f"--test-size {test_size:g}: expected a share between 0 and 1")
    model_class = os.environ.get("MODEL_CLASS", "svc")
    if model_class not in MODELS:
        print(f"MODEL_CLASS={model_class!r}: expected one of {', '.join(MODELS)}", file=sys.stderr)
        return 2

    iris = load_iris()
    train_x, test_x, train_y, test_y = train_test_split(
        iris.data, iris.target, test_size=test_size, stratify=iris.target, random_state=0
    )
    print(f"Fitting {model_class} on {len(train_x)} flowers, testing on {len(test_x)}", flush=True)
    model = MODELS[model_class]().fit(train_x, train_y)
    predicted = model.predict(test_x)
    accuracy = accuracy_score(test_y, predicted)
    print(f"Classification report of {model_class}:\n", flush=True)
    print(classification_report(test_y, predicted, target_names=iris.target_names, zero_division=0), flush=True)

    if folder := os.environ.get("JOB_OUTPUT_DIR"):
        result = {"model_class": model_class, "test_size": test_size, "accuracy": round(accuracy, 4)}
        Path(folder, "result.json").write_text(json.dumps(result) + "\n")
    print(f"Accuracy of {model_class}: {accuracy:.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
