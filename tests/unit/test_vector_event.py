"""What a vector takes on its topic, which a setting speaks of."""

from typing import Any, cast

import numpy as np

from deeplens_streams.broker.codec import encode
from models.events import VectorIndexingData, VectorIndexingRequested, VectorMetadata, utc_now


def test_a_vector_of_2048_numbers_takes_25_kb() -> None:
    # As ResNet50's: none is negative, few are large.
    vector = np.random.default_rng(0).exponential(size=2048)
    event = VectorIndexingRequested.new(
        "acme",
        VectorIndexingData(
            imageId="img_af61e99b-954f-430a-8df7-4670ad29cf91",
            modelName="resnet50-untrained",
            featureVector=cast(Any, (vector / np.linalg.norm(vector)).astype(np.float32)),
            vectorMetadata=VectorMetadata(
                extractionTime=utc_now(), processingTimeMs=117.428, modelVersion="untrained-seed-1"
            ),
        ),
        correlationId="a2ec8c47-5e3a-4ce7-a0fb-f4fe5e716835",
    )
    assert 24_000 < len(encode(event)) < 26_000
