"""Set a part of the iris data aside for the test; what is left is to learn from. Knows nothing of Prefect."""

import argparse
import json
import os
from pathlib import Path

from flowers import Flowers, save
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--test-size", type=float, default=0.2, help="share of the data kept for the test, 0 to 1")
    test_size = parser.parse_args().test_size

    iris = load_iris()
    train_x, test_x, train_y, test_y = train_test_split(
        iris.data, iris.target, test_size=test_size, stratify=iris.target, random_state=0
    )
    output = Path(os.environ["JOB_OUTPUT_DIR"])
    save(Flowers(train_x, train_y), output / "train.csv")
    save(Flowers(test_x, test_y), output / "test.csv")
    (output / "result.json").write_text(json.dumps({"train": len(train_y), "test": len(test_y)}) + "\n")
    print(f"{len(train_y)} flowers to learn from, {len(test_y)} for the test")


if __name__ == "__main__":
    main()
