"""The real process of the model in a container that has hardly any memory left for pictures."""

from deeplens_streams.features import process

if __name__ == "__main__":
    process.container_room = lambda: 0
    process.main()
