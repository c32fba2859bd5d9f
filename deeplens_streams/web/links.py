"""The addresses that answers name."""


def status_url(image_id: str) -> str:
    return f"/api/v1/images/{image_id}/status"


def content_url(image_id: str) -> str:
    return f"/api/v1/images/{image_id}/content"


def thumbnail_url(image_id: str) -> str:
    return f"/api/v1/images/{image_id}/thumbnail"


def socket_url(image_id: str) -> str:
    return f"/hub/processing-status?imageId={image_id}"
