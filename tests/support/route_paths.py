"""Paths of the HTTP interface, with something in the place of each parameter."""

IMAGE = "img_11111111-1111-4111-8111-111111111111"


def filled(path: str) -> str:
    return (
        path.replace("{image_id}", IMAGE)
        .replace("{tenant_id}", "acme")
        .replace("{letter_id}", IMAGE[4:])
        .replace("{key_id}", "dlk_000000000000")
        .replace("/tables/{name}", "/tables/image_status")
        .replace("{name}", "app.css")
        .replace("{key}", IMAGE)
        .replace("{model_name}", "resnet50")
        .replace("{trash_id}", f"acme.{IMAGE[4:]}.1764500000000-{IMAGE[4:]}")
    )
