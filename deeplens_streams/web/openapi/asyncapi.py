"""The AsyncAPI 3 document: every topic with its event, and the websocket."""

from dataclasses import dataclass
from typing import Any, Final

from deeplens_streams import __version__
from deeplens_streams.broker.topics import Topic
from deeplens_streams.broker.topology import TOPICS, readers, writers
from deeplens_streams.client.models import Status
from deeplens_streams.client.models.json_schemas import IMAGE_ID, STRING, Schema, ref
from deeplens_streams.config import Settings
from deeplens_streams.web.openapi import components
from deeplens_streams.web.openapi.record_schemas import nested_records, record_schema
from models.events import Event


@dataclass(frozen=True, slots=True)
class Flow:
    """What one topic carries, and between whom."""

    topic: Topic
    event: type[Event]
    written_by: str
    read_by: str


def _flow(topic: Topic) -> Flow:
    assert topic.event is not None, "Faust's own topics are no interface"
    return Flow(topic, topic.event, writers(topic), readers(topic))


FLOWS: Final = tuple(_flow(topic) for topic in TOPICS)

_HEADERS: Final[Schema] = {
    "type": "object",
    "properties": dict.fromkeys(("eventType", "tenantId", "correlationId", "timestamp"), STRING),
}
_SOCKET: Final = "processingStatus"


def asyncapi_document(settings: Settings) -> dict[str, Any]:
    """Return the document of every topic, under the names that `settings` give them."""
    records = {inner for flow in FLOWS for inner in nested_records(flow.event)}
    schemas = {
        each.__name__: record_schema(each, reading=True)
        for each in sorted(records, key=lambda each: each.__name__)
    }
    for flow in FLOWS:
        properties = schemas[flow.event.__name__]["properties"]
        properties["eventType"] = {"const": flow.event.EVENT_TYPE}
    schemas["ImageStatus"] = components.succeeding(Status)
    steps = components.named()
    schemas |= {name: steps[name] for name in ("ProcessingStep", "OtherStep")}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "DeepLens Streams",
            "version": __version__,
            "description": "Every message is keyed by its image's ID, what is of a tenant alone "
            "by the tenant's. Readers ignore fields that they do not know; a message that cannot "
            "be read becomes a dead letter.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{broker}",
                "protocol": "kafka",
                "description": "As `DEEPLENS_BROKER` says.",
                "variables": {"broker": {"default": "localhost:9092"}},
            },
            "api": {
                "host": "{host}",
                "protocol": "ws",
                "description": "Any worker with the role `api`.",
                "variables": {"host": {"default": "localhost:8080"}},
            },
        },
        "channels": {_id(flow): _channel(flow, settings) for flow in FLOWS}
        | {_SOCKET: _socket_channel()},
        "operations": _operations(),
        "components": {
            "messages": {flow.event.__name__: _message(flow.event) for flow in FLOWS},
            "schemas": schemas,
        },
    }


def _id(flow: Flow) -> str:
    """Return the channel's name in this document: the topic's, in words that generators take."""
    first, *rest = flow.topic.base.removeprefix("deeplens.").split(".")
    return first + "".join(word.capitalize() for word in rest)


def _channel(flow: Flow, settings: Settings) -> dict[str, Any]:
    name = flow.topic.name(settings.namespace)
    config = flow.topic.config(settings)
    kept: dict[str, Any] = {
        "cleanup.policy": [config["cleanup.policy"]],
        "max.message.bytes": int(config["max.message.bytes"]),
    }
    if "retention.ms" in config:
        kept["retention.ms"] = int(config["retention.ms"])
    return {
        "address": name,
        "description": flow.topic.purpose
        + ("" if flow.topic.is_fixed else "; it may have more partitions than are declared here"),
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": {flow.event.__name__: {"$ref": f"#/components/messages/{flow.event.__name__}"}},
        "bindings": {
            "kafka": {
                "topic": name,
                "partitions": flow.topic.partitions,
                "replicas": settings.replication,
                "topicConfiguration": kept,
            }
        },
    }


def _message(event: type[Event]) -> dict[str, Any]:
    return {
        "name": event.EVENT_TYPE,
        "summary": (event.__doc__ or "").partition("\n")[0],
        "contentType": "application/json",
        "headers": _HEADERS,
        "correlationId": {"location": "$message.header#/correlationId"},
        "payload": ref(event.__name__),
        "bindings": {"kafka": {"key": STRING}},
    }


def _operations() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for flow in FLOWS:
        channel = {"$ref": f"#/channels/{_id(flow)}"}
        messages = [{"$ref": f"#/channels/{_id(flow)}/messages/{flow.event.__name__}"}]
        for action, who in (("send", flow.written_by), ("receive", flow.read_by)):
            found[f"{action}{flow.event.__name__}"] = {
                "action": action,
                "channel": channel,
                "summary": f"By {who}.",
                "messages": messages,
            }
    found["sendImageStatus"] = {
        "action": "send",
        "channel": {"$ref": f"#/channels/{_SOCKET}"},
        "summary": "To each client that follows a picture: at once, and at every change.",
        "messages": [{"$ref": f"#/channels/{_SOCKET}/messages/ImageStatus"}],
    }
    return found


def _socket_channel() -> dict[str, Any]:
    query = {"type": "object", "properties": {"imageId": IMAGE_ID}, "required": ["imageId"]}
    return {
        "address": "/hub/processing-status",
        "description": "One picture's way; see `followImage` in the OpenAPI document.",
        "servers": [{"$ref": "#/servers/api"}],
        "messages": {
            "ImageStatus": {
                "name": "ImageStatus",
                "contentType": "application/json",
                "payload": ref("ImageStatus"),
            }
        },
        "bindings": {"ws": {"method": "GET", "query": query}},
    }
