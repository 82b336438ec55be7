"""The model classes that are compared, each with the one value that matters most for it."""

from collections.abc import Callable

from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

MODELS: dict[str, Callable[..., ClassifierMixin]] = {
    "svc": lambda c=1.0: make_pipeline(StandardScaler(), SVC(C=c)),
    "forest": lambda trees=100: RandomForestClassifier(n_estimators=int(trees), random_state=0),
    "logreg": lambda c=1.0: make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000)),
}


def model_of(name: str, strength: float) -> ClassifierMixin:
    """A model that has learned nothing yet; ``strength`` is C of svc and logreg, the number of trees of a forest."""
    return MODELS[name](strength)
