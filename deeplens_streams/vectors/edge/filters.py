"""Conditions as Qdrant Edge takes them."""

import qdrant_edge as edge

from deeplens_streams.vectors.collection_ref import TENANT_FIELD
from deeplens_streams.vectors.filters import FILE_NAME, TERMS, TIME_FIELD, Conditions


def to_filter(wanted: Conditions) -> edge.Filter | None:
    """Return the filter, or None where everything matches."""
    must: list[edge.ConditionType] = [
        edge.FieldCondition(TERMS, match=edge.MatchAny(list(terms))) for terms in wanted.any_of
    ]
    if wanted.file_names is not None:
        must.append(edge.FieldCondition(FILE_NAME, match=edge.MatchAny(list(wanted.file_names))))
    if wanted.tenant is not None:
        must.append(edge.FieldCondition(TENANT_FIELD, match=edge.MatchValue(wanted.tenant)))
    if wanted.points is not None:
        must.append(edge.HasIdCondition(set(wanted.points)))
    if wanted.uploaded_from is not None or wanted.uploaded_before is not None:
        since, before = wanted.uploaded_from, wanted.uploaded_before
        between = edge.RangeDateTime(
            gte=since.isoformat() if since else None, lt=before.isoformat() if before else None
        )
        must.append(edge.FieldCondition(TIME_FIELD, range=between))
    must_not: list[edge.ConditionType] = (
        [edge.HasIdCondition({wanted.excluded_point})] if wanted.excluded_point else []
    )
    return edge.Filter(must=must, must_not=must_not) if must or must_not else None
