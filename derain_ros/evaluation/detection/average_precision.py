"""Average precision, as PASCAL VOC has computed it since 2010."""

import numpy as np


def average_precision(scores: np.ndarray, hits: np.ndarray, truths: int) -> float | None:
    """Area under the curve of precision over recall, made monotone.

    With precision and recall at each score that occurs, from the highest down,
    ``AP = Σ (r_i − r_{i−1}) · max_{j ≥ i} p_j``. Detections of equal score enter together, so
    that their order does not matter. Everingham et al., "The PASCAL Visual Object Classes
    Challenge: A Retrospective", IJCV 111, 2015, section 4.2.

    Parameters
    ----------
    scores
        float, N, of the detections of one class over all images.
    hits
        bool, N, whether each found an object.
    truths
        How many objects there are.

    Returns
    -------
    float or None
        0–1; None where there is no object.

    """
    if not truths:
        return None
    if not len(scores):
        return 0.0
    order = np.argsort(-scores, kind='stable')
    scores, hits = scores[order], hits[order]
    last_of_score = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    found = np.cumsum(hits)[last_of_score]
    recall = found / truths
    precision = found / (last_of_score + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
