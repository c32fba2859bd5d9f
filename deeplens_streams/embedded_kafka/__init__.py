"""Apache Kafka for one machine, without Docker.

The one name that others need; processes and jars are its own business.
"""

from deeplens_streams.embedded_kafka.server import KafkaDidNotStart, KafkaServer

__all__ = ["KafkaDidNotStart", "KafkaServer"]
